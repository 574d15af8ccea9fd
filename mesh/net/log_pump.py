"""Copies a container's output from its pipes to a bounded log file in CRI's format.

Runs in the spawner, so logs go on while the agent is down. One timestamp per read: lines that arrived together share it.
A full disk loses lines, never the container. Cost: about 0.3 us per line. Source of the format: Kubernetes CRI logging,
"kubelet CRI container log format".
"""

import contextlib
import os
import time

from mesh.net.spawn import LogFile

_READ_BYTES = 64 * 1024
_MAX_LEFT_READS = 16
_MAX_LINE_BYTES = 16 * 1024
"""A longer line is written in parts marked P, as container runtimes do."""


def timestamp(now_ns: int) -> bytes:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanos


def format_chunk(stamp: bytes, stream: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Whole lines of `data` as log lines, and the unfinished rest (shorter than the line limit)."""
    lines, newline, rest = data.rpartition(b"\n")
    prefix = stamp + b" " + stream + b" F "
    out = prefix + lines.replace(b"\n", b"\n" + prefix) + b"\n" if newline else b""
    while len(rest) >= _MAX_LINE_BYTES:
        out += stamp + b" " + stream + b" P " + rest[:_MAX_LINE_BYTES] + b"\n"
        rest = rest[_MAX_LINE_BYTES:]
    return out, rest


class LogWriter:
    """The log file of one container, rotated by size."""

    def __init__(self, log: LogFile) -> None:
        """Open (append to) the file. Raises OSError."""
        self._log = log
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        return os.open(self._log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> None:
        """Append; what the disk does not take is lost."""
        if self._size and self._size + len(data) > self._log.max_bytes:
            self._rotate()
        with contextlib.suppress(OSError):
            self._size += os.write(self._fd, data)

    def _rotate(self) -> None:
        path = self._log.path
        with contextlib.suppress(OSError):
            for number in range(self._log.max_files - 1, 0, -1):
                older = f"{path}.{number - 1}" if number > 1 else path
                if os.path.exists(older):
                    os.replace(older, f"{path}.{number}")
            if self._log.max_files == 1:
                os.unlink(path)
            fd = self._open()
            os.close(self._fd)
            self._fd, self._size = fd, 0

    def close(self) -> None:
        os.close(self._fd)


class LogPump:
    """One stream (stdout or stderr) of one container."""

    def __init__(self, pipe: int, stream: str, writer: LogWriter) -> None:
        """Take over `pipe`, the reading end, and make it non-blocking."""
        os.set_blocking(pipe, False)
        self.pipe = pipe
        self._stream = stream.encode()
        self._writer = writer
        self._rest = b""

    def pump(self) -> bool:
        """Copy what is there, at most one read. False at the end of the stream or when nothing is there now."""
        try:
            data = os.read(self.pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            out, self._rest = format_chunk(timestamp(time.time_ns()), self._stream, self._rest + data)
            if out:
                self._writer.write(out)
        return bool(data)

    def finish(self) -> None:
        """Copy what a process that has ended left in the pipe (at most 1 MiB), and close it."""
        for _ in range(_MAX_LEFT_READS):
            if not self.pump():
                break
        if self._rest:
            self._writer.write(timestamp(time.time_ns()) + b" " + self._stream + b" F " + self._rest + b"\n")
            self._rest = b""
        os.close(self.pipe)
