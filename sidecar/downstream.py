"""A client's HTTP/1.1 connection: takes requests off it, one after the other, and hands them to its exchange.

Pipelined requests wait in a bounded buffer. A malformed request is answered and the connection closed; it never reaches an upstream.
"""

import asyncio
import socket
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from mesh.http.body import BodyReader, ChunkedReader, LengthReader
from mesh.http.errors import HttpSyntaxError
from mesh.http.request import find_request_head
from sidecar import flags as flag
from sidecar import tunnel
from sidecar.exchange import Exchange
from sidecar.head_cache import MAX_CACHED_HEAD_BYTES
from sidecar.replies import reply
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.plane import HttpSite, Plane

MAX_BUFFER_BYTES = 65536
"""Bytes of further requests that may wait behind the one at hand; beyond it the client is not read from."""
MAX_WHOLE_BODY_BYTES = 16384
"""A request body up to this long that came with its head is sent on in one piece."""
LINGER_S = 2.0
"""How long a client may go on sending after a final answer, so that the answer is not lost to a reset."""
MAX_LINGER_BYTES = 1 << 20
_WITH_A_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close at once, with a reset instead of an end of stream."""


class Phase(IntEnum):
    """What the connection is doing."""

    IDLE = 0
    """Between requests, or in the middle of a head."""
    BODY = 1
    """Reading a request's body (its response may have begun)."""
    BUSY = 2
    """The request is complete, its response is not."""
    TUNNEL = 3
    LINGER = 4
    """The last answer has been sent; what still comes is thrown away."""
    CLOSED = 5


_IDLE = Phase.IDLE
_BUSY = Phase.BUSY

_PAUSE_PIPELINE = 1
_PAUSE_BODY = 2
_PAUSE_WRITE = 4


class DownstreamConnection(asyncio.Protocol):
    """One client connection of an HTTP listener."""

    __slots__ = (
        "_buffer",
        "_flushed_at",
        "_head_since",
        "_is_taking",
        "_lingered_bytes",
        "_paused_for",
        "_phase",
        "_reader",
        "_requests",
        "_retirement",
        "_unsent_bytes",
        "deadline",
        "exchange",
        "is_retiring",
        "is_write_paused",
        "original_destination",
        "peer_address",
        "peer_text",
        "plane",
        "site",
        "transport",
        "wheel_at",
    )

    def __init__(self, plane: "Plane", site: "HttpSite", original_destination: tuple[str, int] | None = None) -> None:
        self.plane = plane
        self.site = site
        self.original_destination = original_destination
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.peer_address = b""
        self.peer_text = ""
        self.exchange = Exchange(self, plane)
        self.deadline = NEVER
        self.wheel_at = NEVER
        self.is_write_paused = False
        self._phase = Phase.IDLE
        self._buffer = b""
        self._head_since = 0.0
        self._reader: BodyReader | None = None
        self._paused_for = 0
        self._lingered_bytes = 0
        self._is_taking = False
        """`_take_requests` is at work further up the stack."""
        self._unsent_bytes = 0
        """While lingering: what was left to send when we last looked, and when it last became less."""
        self._flushed_at = 0.0
        self.is_retiring = False
        """The next response is the last one."""
        self._requests = 0
        """Counted where a limit is set."""
        self._retirement: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self.peer_address = str(peer[0]).encode()
            self.peer_text = f"{peer[0]}:{peer[1]}"
        self.plane.on_opened(self)
        self._wait_until(time.monotonic(), self.site.runtime.filter.idle_timeout_s)
        if self.site.runtime.filter.max_connection_duration_s:
            self._retirement = self.plane.loop.call_later(
                self.site.runtime.filter.max_connection_duration_s, self._retire
            )

    def data_received(self, data: bytes) -> None:
        # The short way: the bytes are exactly one head, and it has no body.
        if self._phase is _IDLE and not self._buffer and len(data) <= MAX_CACHED_HEAD_BYTES:
            runtime = self.site.runtime
            template = runtime.templates.get(data)
            if template is None and 0 < data.find(b"\r\n\r\n") == len(data) - 4 < runtime.short_head_bytes:
                try:
                    template = runtime.learn(data)
                except HttpSyntaxError as error:
                    if data[:2] != b"\r\n":  # an empty line in front is legal, and for the long way
                        self._refuse(error)
                        return
            if template is not None and not template.shape.has_body:
                self._phase = _BUSY
                self.exchange.begin(template)
                return
        self._on_bytes(data)

    def eof_received(self) -> bool:
        if self._phase is Phase.TUNNEL:
            tunnel.on_client_eof(self.exchange)
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.CLOSED
        self.deadline = NEVER
        if self._retirement is not None:
            self._retirement.cancel()
        self.plane.on_closed(self)
        if self.exchange.is_active:
            self.exchange.on_client_gone()
        # The two hold each other. The collector comes by so seldom that under churn many MiB would wait for it.
        self.exchange = cast(Exchange, None)

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._pause(_PAUSE_WRITE if self._phase in (Phase.IDLE, Phase.BUSY) else 0)
        if self._phase is _IDLE:
            self._expect_reading(time.monotonic())
        self.exchange.on_downstream_full()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._resume(_PAUSE_WRITE)
        self.exchange.on_downstream_ready()
        if self._phase is _IDLE:
            self._wait_until(time.monotonic(), self.site.runtime.filter.idle_timeout_s)
            if self._buffer:
                self._head_since = 0.0
                self._take_requests()

    def _expect_reading(self, now: float) -> None:
        """All has been answered, but the client does not read: it has as long for it as a request may stand still."""
        self._wait_until(now, self.site.runtime.filter.stream_idle_timeout_s)

    # -- reading

    def _on_bytes(self, data: bytes) -> None:
        phase = self._phase
        if phase is Phase.IDLE:
            self._buffer = self._buffer + data if self._buffer else data
            self._take_requests()
        elif phase is Phase.BODY:
            self._take_body(data)
        elif phase is Phase.BUSY:
            self._buffer += data
            if len(self._buffer) > MAX_BUFFER_BYTES:
                self._pause(_PAUSE_PIPELINE)
        elif phase is Phase.TUNNEL:
            tunnel.on_client_data(self.exchange, data)
        elif phase is Phase.LINGER:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > MAX_LINGER_BYTES:
                self.transport.abort()

    def _take_requests(self) -> None:
        """Start on the requests in the buffer, until one keeps us waiting."""
        if self._is_taking:
            return  # a request that was answered at once: the loop below goes on, else a pipeline would pile up on the stack
        self._is_taking = True
        try:
            while self._buffer and self._phase is _IDLE and not self.is_write_paused:
                if not self._take_request():
                    return
        except HttpSyntaxError as error:
            self._refuse(error)
        finally:
            self._is_taking = False

    def _take_request(self) -> bool:
        """False: more bytes are needed."""
        runtime = self.site.runtime
        buffer = self._buffer
        while buffer[:2] == b"\r\n":
            # Empty lines before a request are ignored (RFC 9112 s2.2); nor do they begin one that could be late.
            buffer = self._buffer = buffer[2:]
        if not buffer:
            return False
        end = find_request_head(buffer, runtime.limits)
        if end < 0:
            if not self._head_since:
                self._head_since = now = time.monotonic()
                self._wait_until(now, runtime.filter.request_headers_timeout_s)
            return False
        template = runtime.template_for(buffer[:end])
        self._head_since = 0.0
        length = template.head.content_length
        if 0 < length <= len(buffer) - end and length <= MAX_WHOLE_BODY_BYTES:
            self._phase = Phase.BUSY
            self._buffer = buffer[end + length :]
            self.exchange.begin(template, buffer[end : end + length])
            return True
        self._buffer = buffer[end:]
        if template.has_body:
            self._begin_body(template.head.chunked, template.head.content_length)
            if template.head.expects_continue and not self._buffer:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._phase = Phase.BUSY
        self.exchange.begin(template)
        if self._phase is Phase.BODY and self._buffer:
            data, self._buffer = self._buffer, b""
            self._take_body(data)
        if template.has_body:
            self.exchange.flush_request()
        return True

    def _begin_body(self, chunked: bool, length: int) -> None:
        self._phase = Phase.BODY
        self._reader = ChunkedReader() if chunked else LengthReader(length)

    def _take_body(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        try:
            pieces, at = reader.feed(data)
        except HttpSyntaxError as error:
            self.plane.stats.count_malformed(error.reason)
            self.exchange.on_client_malformed(error)
            return
        if pieces:
            self.exchange.on_request_body(pieces)
        if reader.done:
            self._reader = None
            if at < len(data):
                self._buffer = data[at:]
            self._phase = Phase.BUSY
            if self.is_write_paused:
                self._pause(_PAUSE_WRITE)  # it was not paused for this while there was a body to read
            self.exchange.on_request_end(reader.trailers)
        elif self.exchange.wants_pause:
            self._pause(_PAUSE_BODY)

    def _refuse(self, error: HttpSyntaxError) -> None:
        """Answer a request that must not be forwarded, and say goodbye."""
        runtime = self.site.runtime
        self.plane.stats.count_malformed(error.reason)
        series = runtime.no_route.branches[0].series_for(None)
        result = series.result(error.status, flag.DOWNSTREAM_PROTOCOL_ERROR)
        body = f"refused ({error.reason}): {error.detail}\n".encode()
        wire = reply(error.status, body, server_line=runtime.server_line, keeps=False)
        result.add(0.0, len(self._buffer), len(wire))
        self.transport.write(wire)
        self.linger(time.monotonic())

    # -- called by the exchange

    def count_request(self) -> None:
        """A request has begun on a listener that limits its connections."""
        self._requests += 1
        limit = self.site.runtime.filter.max_requests_per_connection
        if limit and self._requests >= limit:
            self.is_retiring = True

    def _retire(self) -> None:
        """It has lived as long as it may: the request at hand is the last one."""
        self.is_retiring = True
        self.close_if_idle()

    def on_exchange_end(self, now: float) -> None:
        """The response is complete and the connection stays: on to the next request."""
        if self._phase is not _BUSY:
            return
        self._phase = _IDLE
        self.deadline = deadline = now + self.site.runtime.idle_timeout_s
        if deadline < self.wheel_at:
            self.plane.wheel.watch(self, now)
        if self._paused_for:
            self._resume(_PAUSE_PIPELINE | _PAUSE_BODY)
            if self.is_write_paused:
                self._expect_reading(now)
        if self._buffer:
            self._take_requests()

    def on_upstream_attached(self) -> None:
        self._resume(_PAUSE_BODY)

    def pause_body(self) -> None:
        """The upstream does not keep up."""
        if self._phase in (Phase.BODY, Phase.TUNNEL):
            self._pause(_PAUSE_BODY)

    def resume_body(self) -> None:
        self._resume(_PAUSE_BODY)

    def on_tunnel(self) -> None:
        """From here on bytes are passed through."""
        self._phase = Phase.TUNNEL
        if self._buffer:
            data, self._buffer = self._buffer, b""
            tunnel.on_client_data(self.exchange, data)

    def linger(self, now: float) -> None:
        """Send what is written, then the end of the stream; throw away what still comes, for a while.

        A client that reads slowly has as long as it takes, if only it reads.
        """
        if self._phase is Phase.CLOSED:
            return
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._flushed_at = now
        self._phase = Phase.LINGER
        self._buffer = b""
        self._reader = None
        self._resume(_PAUSE_PIPELINE | _PAUSE_BODY | _PAUSE_WRITE)
        if not self.transport.is_closing():
            self.transport.write_eof()
        self._wait_until(now, LINGER_S)

    def abort(self) -> None:
        """Break the connection. A client that has not got all must not take what it got for all: to HTTP/1.0 a mere end says that."""
        has_all = self._phase in (Phase.IDLE, Phase.LINGER) and not self.transport.get_write_buffer_size()
        self._phase = Phase.CLOSED
        self.deadline = NEVER
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not has_all and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WITH_A_RESET)
        self.transport.abort()

    def close(self) -> None:
        """Both sides have said all."""
        self._phase = Phase.CLOSED
        self.deadline = NEVER
        self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Between requests."""
        return self._phase is Phase.IDLE and not self._buffer

    @property
    def quiet_since(self) -> float:
        """When the connection became idle, as nearly as it is known. Monotonic seconds; means nothing while it is not idle."""
        idle_s = self.site.runtime.idle_timeout_s
        return self.exchange.started if NEVER in (self.deadline, idle_s) else self.deadline - idle_s

    def close_if_idle(self) -> None:
        """For draining: a connection between requests is closed."""
        if self.is_idle:
            self.transport.close()

    # -- deadlines and pauses

    def on_deadline(self, now: float) -> None:
        self.deadline = NEVER
        if self._phase is Phase.CLOSED:
            return
        if self.exchange.is_active:
            self.exchange.on_deadline(now)
        elif self._phase is Phase.LINGER:
            self._on_linger_deadline(now)
        elif self.is_write_paused or self.transport.get_write_buffer_size():
            self.abort()  # it does not read
        elif self._phase is Phase.IDLE and self._buffer:
            self._refuse(HttpSyntaxError(408, "slow-head", "the request's head did not come in time"))
        else:
            self.transport.close()

    def _on_linger_deadline(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes = unsent
            self._flushed_at = now
        elif not unsent:
            self.transport.abort()
            return
        elif now - self._flushed_at >= (self.site.runtime.filter.stream_idle_timeout_s or NEVER):
            self.abort()
            return
        self._wait_until(now, LINGER_S)

    def _wait_until(self, now: float, seconds: float) -> None:
        self.deadline = now + seconds if seconds else NEVER
        if self.deadline < self.wheel_at:
            self.plane.wheel.watch(self, now)

    def _pause(self, reason: int) -> None:
        if reason and not self._paused_for and not self.transport.is_closing():
            self.transport.pause_reading()
        self._paused_for |= reason

    def _resume(self, reason: int) -> None:
        if not self._paused_for:
            return
        self._paused_for &= ~reason
        if not self._paused_for and not self.transport.is_closing():
            self.transport.resume_reading()
