"""Tells glibc's allocator to keep what a proxy frees and soon needs again.

Each read from a busy upstream is a buffer of up to 256 KB. By default one beyond 128 KB is mapped and unmapped every time, and the kernel
fills its pages with zeros again: more than half of the CPU time of a 64 KB response (../docs/benchmarks).
"""

import ctypes
import logging
from typing import Final

logger: Final = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
MMAP_THRESHOLD_BYTES: Final = 32 << 20
"""Blocks below come from the heap. glibc takes no larger value. Source: mallopt(3)."""
TRIM_THRESHOLD_BYTES: Final = 64 << 20
"""Free memory at the end of the heap beyond this goes back to the kernel."""


def keep_freed_memory() -> bool:
    """For this process and its forks. False: the C library has no such setting (musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES))
