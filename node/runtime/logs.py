"""Reads a container's logs: the last lines, since a time, and on as they grow. The spawner writes them (CRI's format)."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from node.errors import LogError

_BLOCK_BYTES = 64 * 1024
_FOLLOW_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is asked for. Source: Kubernetes API reference, Pod `log`."""

    tail_lines: int | None = None
    since: str = ""
    """Only lines at or after this RFC 3339 UTC time."""
    timestamps: bool = False
    follow: bool = False
    limit_bytes: int | None = None


def render(line: bytes, options: LogOptions) -> bytes:
    """One line of the file as it is shown; b"" when it is too old or malformed. Pure."""
    stamp, _, rest = line.partition(b" ")
    _stream, _, rest = rest.partition(b" ")
    tag, separator, text = rest.partition(b" ")
    if not separator or (options.since and stamp.decode(errors="replace") < options.since):
        return b""
    shown = text if tag == b"F" else text.rstrip(b"\n")
    return stamp + b" " + shown if options.timestamps else shown


def last_lines_offset(path: Path, count: int) -> tuple[int, int]:
    """Where the last `count` lines of a file begin, and how many of them it has. Reads from the end in blocks."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        newlines = 0
        while position > 0:
            step = min(_BLOCK_BYTES, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            for index in range(len(block) - 1, -1, -1):
                if block[index] != 0x0A:
                    continue
                newlines += 1
                if newlines > count:
                    return position + index + 1, count
        return 0, newlines


def log_parts(path: Path) -> list[Path]:
    """The files of one run, oldest first: `path.2`, `path.1`, `path`. Raises LogError when there is none."""
    parts = [path, *sorted(path.parent.glob(f"{path.name}.*"), key=lambda part: int(part.suffix[1:]))]
    existing = [part for part in reversed(parts) if part.exists()]
    if not existing:
        raise LogError(f"there is no log of {path.parent.name} yet")
    return existing


def _starting_points(parts: list[Path], tail_lines: int | None) -> list[tuple[Path, int]]:
    if tail_lines is None:
        return [(part, 0) for part in parts]
    starts: list[tuple[Path, int]] = []
    left = tail_lines
    for part in reversed(parts):
        offset, found = last_lines_offset(part, left)
        starts.insert(0, (part, offset))
        left -= found
        if left <= 0:
            break
    return starts


async def read_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The log in pieces. With `follow` it goes on until the run has ended (`is_running`) and all is read. Raises LogError.

    A file rotated away while it is followed is read to its end first. Lines are bounded by the writer (16 KiB).
    """
    left = options.limit_bytes
    async for block in _blocks(path, options, is_running):
        piece = b"".join(render(line, options) for line in block)
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


async def _blocks(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncGenerator[list[bytes], None]:
    """Whole lines, some at a time."""
    points = _starting_points(log_parts(path), options.tail_lines)
    for part, offset in points[:-1]:
        with part.open("rb") as file:
            file.seek(offset)
            while lines := file.readlines(_BLOCK_BYTES):
                yield lines
                await asyncio.sleep(0)
    last, offset = points[-1]
    file = last.open("rb")
    try:
        file.seek(offset)
        rest = b""
        while True:
            # Asked before reading, so that what is written before the end is read after it.
            runs_on = options.follow and is_running()
            while lines := file.readlines(_BLOCK_BYTES):
                lines[0] = rest + lines[0]
                rest = lines.pop() if not lines[-1].endswith(b"\n") else b""
                yield lines
            if not runs_on:
                return
            if not _is_same_file(file.fileno(), path):
                file.close()
                file = path.open("rb")
            else:
                await asyncio.sleep(_FOLLOW_POLL_S)
    finally:
        file.close()


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return True
