"""Keeping the processes' logs bounded. They are open in append mode, so a file can be cut while it is written."""

import contextlib
import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 20 << 20


def cut_long_logs(folder: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Move what a log longer than `max_bytes` holds to NAME.log.1 and empty it. Lines written in between are lost."""
    for log in folder.glob("*.log"):
        with contextlib.suppress(OSError):
            if log.stat().st_size > max_bytes:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)
