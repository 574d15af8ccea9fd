"""The access log: one line per request, text or JSON, written in batches off the loop.

Lines are built after the response. At most 1 MiB waits to be written; lines beyond it are dropped and counted.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime

import msgspec

from sidecar.config import AccessLog, AccessLogFormat
from sidecar.records import RequestRecord
from sidecar.worker_share import LineLock

MAX_WAITING_BYTES = 1 << 20
FLUSH_AFTER_S = 0.2

_ENCODER = msgspec.json.Encoder()
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in [*range(0x20), 0x7F, *range(0x80, 0xA0)]} | {ord('"'): '\\"'}


def format_json(record: RequestRecord) -> bytes:
    """One JSON object per line."""
    return (
        _ENCODER.encode(
            {
                "start_time": _timestamp(record.start_s),
                "direction": record.direction.value,
                "method": record.method,
                "path": record.target,
                "authority": record.authority,
                "protocol": f"HTTP/1.{record.minor}",
                "response_code": record.status,
                "response_flags": record.flags or "-",
                "response_code_details": record.code,
                "detail": record.detail,
                "bytes_received": record.request_bytes,
                "bytes_sent": record.response_bytes,
                "duration_ms": round(record.duration_ms, 3),
                "attempts": record.attempts,
                "upstream_cluster": record.cluster,
                "upstream_host": record.endpoint,
                "route_name": record.route,
                "cause": str(record.provenance) if record.provenance else "",
                "request_id": record.request_id,
                "trace_id": record.trace.trace_id.decode() if record.trace else "",
                "downstream_remote_address": record.client,
                "listener": record.listener,
            }
        )
        + b"\n"
    )


def format_text(record: RequestRecord) -> bytes:
    """Envoy's default columns, then route and cause."""
    cause = str(record.provenance) if record.provenance else "-"
    line = (
        f'[{_timestamp(record.start_s)}] "{_clean(record.method)} {_clean(record.target)} HTTP/1.{record.minor}" '
        f"{record.status} {record.flags or '-'} {record.request_bytes} {record.response_bytes} "
        f'{record.duration_ms:.1f} {record.attempts} "{_clean(record.request_id)}" "{_clean(record.authority)}" '
        f'"{record.endpoint or "-"}" {record.cluster or "-"} "{record.route or "-"}" "{cause}"\n'
    )
    return line.encode("utf-8", "replace")


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean(text: str) -> str:
    return text.translate(_UNPRINTABLE)


class AccessLogWriter:
    """Writes lines to one path. A `/dev/stdout` or `/dev/stderr` path means this process's own stream."""

    def __init__(self, config: AccessLog, loop: asyncio.AbstractEventLoop, line_lock: LineLock | None = None) -> None:
        self._loop = loop
        self._line_lock = line_lock
        """Held while lines are written, so that those of several processes don't mix."""
        self._format = format_json if config.format is AccessLogFormat.JSON else format_text
        self._descriptor, self._owns = _open(config.path)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_writing = False
        self.dropped_total = 0
        """Lines lost because the file did not keep up, or could not be written."""

    def write(self, record: RequestRecord) -> None:
        """Queue the line of `record`."""
        line = self._format(record)
        if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self.dropped_total += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._timer is None and not self._is_writing:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._waiting or self._is_writing:
            return
        lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._is_writing = True
        work = self._loop.run_in_executor(None, self._write_lines, b"".join(lines))
        work.add_done_callback(lambda done: self._written(done, len(lines)))

    def _written(self, done: "asyncio.Future[bool]", lines: int) -> None:
        self._is_writing = False
        if done.cancelled() or not done.result():
            self.dropped_total += lines
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER_S, self._flush)

    def _write_lines(self, data: bytes) -> bool:
        if self._line_lock is None:
            return _write_all(self._descriptor, data)
        with self._line_lock:
            return _write_all(self._descriptor, data)

    def close(self) -> None:
        """Write what waits and let go of the file. Blocks for as long as that takes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._write_lines(b"".join(self._waiting)):
            self.dropped_total += len(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if self._owns:
            os.close(self._descriptor)
            self._owns = False


def _open(path: str) -> tuple[int, bool]:
    if path == "/dev/stdout":
        return sys.__stdout__.fileno() if sys.__stdout__ else 1, False
    if path == "/dev/stderr":
        return sys.__stderr__.fileno() if sys.__stderr__ else 2, False
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640), True


def _write_all(descriptor: int, data: bytes) -> bool:
    """False when the file cannot be written; a log that fails must not stop traffic."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        return False
    return True
