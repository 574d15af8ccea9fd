"""How many file descriptors this process may have, and how many of them clients may take."""

import logging
import resource
from typing import Final

logger: Final = logging.getLogger(__name__)

RESERVED_DESCRIPTORS: Final = 64
"""For listeners, logs, the control plane and the own ports."""
MIN_CONNECTIONS: Final = 16


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, as far as the kernel lets us. Returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as exc:
        logger.warning("limit of file descriptors not raised", extra={"limit": soft, "wanted": hard, "error": str(exc)})
        return soft
    return hard


def default_max_connections() -> int:
    """Client connections under the limit in force: a client whose request is under way needs a second descriptor upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return max(MIN_CONNECTIONS, (soft - RESERVED_DESCRIPTORS) // 2)
