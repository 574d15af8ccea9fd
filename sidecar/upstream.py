"""A connection to an endpoint: parses responses and hands them to the exchange that owns it.

Hot path: a response whose head has been seen before and whose body came with it takes one dictionary look-up and goes
straight to `Exchange.complete`. Everything else goes through `_on_bytes`.
"""

import asyncio
import os
from typing import TYPE_CHECKING, cast

from mesh.http.body import BodyReader, ChunkedReader, LengthReader, UntilCloseReader
from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, ResponseHead, find_response_head, parse_response_head
from sidecar import tunnel

if TYPE_CHECKING:
    from sidecar.endpoint import EndpointState
    from sidecar.exchange import Exchange
    from sidecar.pool import Pool

MAX_INTERIM = 64
"""1xx answers before the final one; a server that sends more is broken."""
_MAX_LEFT_BYTES = 262144
"""Read from a connection that broke while we were writing."""


class UpstreamConnection(asyncio.Protocol):
    """One HTTP/1.1 connection to an endpoint. Idle when `owner` is None."""

    __slots__ = (
        "_buffer",
        "_interim",
        "_left",
        "_reader",
        "has_upgraded",
        "host",
        "idle_since",
        "is_closed",
        "is_write_paused",
        "owner",
        "pool",
        "requests",
        "transport",
    )

    def __init__(self, pool: "Pool", host: "EndpointState") -> None:
        self.pool = pool
        self.host = host
        self.owner: Exchange | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.requests = 0
        """Requests sent on it; the first one is 1."""
        self.idle_since = 0.0
        self.is_closed = False
        self.is_write_paused = False
        self.has_upgraded = False
        self._buffer = b""
        self._interim = 0
        self._reader: BodyReader | None = None
        self._left = 0
        """Bytes to come of a response that takes the short way."""

    @property
    def has_partial_head(self) -> bool:
        """Something of a response has come, but less than its head."""
        return bool(self._buffer)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        owner = self.owner
        if owner is None:
            self.pool.discard(self)  # nobody asked: whatever it is, it would answer the next request
            return
        if self._left:
            self._stream(owner, data)
            return
        if owner.is_plain and self._reader is None and not self._buffer:
            end = data.find(b"\r\n\r\n") + 4
            known = owner.branch.responses.get(data[:end])
            if known is None and end > 3:
                try:
                    known = owner.branch.learn(data[:end])
                except HttpSyntaxError:
                    pass  # the long way meets the same error, and answers
            if known is not None:
                missing = known.size_bytes - len(data)
                if missing == 0:
                    owner.complete(self, known, data, end)
                    return
                if missing > 0:
                    self._left = missing
                    owner.begin_stream(known, data, end)
                    return
        self._on_bytes(owner, data)

    def _stream(self, owner: "Exchange", data: bytes) -> None:
        """More of a body whose length is known, sent on as it comes."""
        extra = len(data) - self._left
        if extra < 0:
            self._left = -extra
            owner.on_stream(data)
            return
        owner.on_stream(data[: self._left] if extra else data)
        self._left = 0
        owner.on_response_end(self, [], keeps=not extra)

    def eof_received(self) -> bool:
        owner = self.owner
        if self.has_upgraded and owner is not None:
            tunnel.on_upstream_eof(owner)
            return True
        if owner is None:
            self.pool.discard(self)  # now, not when the loop gets to it: somebody could take it meanwhile
        return False  # closes the transport; connection_lost says the rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.pool.on_lost(self)
        owner = self.owner
        if exc is not None and owner is not None and not owner.request_done:
            self._read_what_is_left()
            owner = self.owner
        if owner is None:
            return
        reader = self._reader
        if isinstance(reader, UntilCloseReader) and exc is None:
            reader.done = True
            owner.on_response_end(self, [], keeps=False)
        elif self._buffer:
            why = "the connection closed in the middle of a response's head"
            owner.on_upstream_malformed(self, HttpSyntaxError(400, "cut-head", why))
        else:
            owner.on_upstream_lost(self)

    def _read_what_is_left(self) -> None:
        """The server broke the connection off while the request's body was on its way. What it had answered is still to be read:
        a write that fails ends the transport before it reads again."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        left = _MAX_LEFT_BYTES
        while left > 0 and self.owner is not None:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            left -= len(data)
            self.data_received(data)

    def pause_writing(self) -> None:
        self.is_write_paused = True
        if self.owner is not None:
            self.owner.on_upstream_full()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self.owner is not None:
            self.owner.on_upstream_ready()

    # -- response parsing

    def _on_bytes(self, owner: "Exchange", data: bytes) -> None:
        if self.has_upgraded:
            tunnel.on_upstream_data(owner, data)
            return
        try:
            if self._reader is None:
                self._on_head_bytes(owner, data)
            else:
                self._on_body_bytes(owner, data, 0)
        except HttpSyntaxError as error:
            owner.on_upstream_malformed(self, error)
        else:
            owner.flush_response()

    def _on_head_bytes(self, owner: "Exchange", data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        while True:
            end = find_response_head(data)
            if end < 0:
                self._buffer = data
                return
            head = parse_response_head(data[:end])
            if head.status >= 200 or head.status == 101:
                self._interim = 0
                break
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise HttpSyntaxError(
                    400, "too-many-interim", f"more than {MAX_INTERIM} interim answers to one request"
                )
            owner.on_interim(head)
            data = data[end:]
        self._begin_body(owner, head, data, end)

    def _begin_body(self, owner: "Exchange", head: ResponseHead, data: bytes, at: int) -> None:
        if head.status == 101:
            if tunnel.switch(owner, self, head):
                self.has_upgraded = True
                if at < len(data):
                    tunnel.on_upstream_data(owner, data[at:])
            return
        if owner.method == b"CONNECT" and head.status < 300:
            self.has_upgraded = True
            tunnel.accept_connect(owner, head)
            if at < len(data):
                tunnel.on_upstream_data(owner, data[at:])
            return
        kind = head.body_kind(owner.method)
        self._reader = _reader_for(kind, head)
        is_whole = kind is BodyKind.NONE or (kind is BodyKind.LENGTH and len(data) - at >= head.content_length)
        if not owner.on_response(self, head, kind, is_whole=is_whole):
            return  # thrown away for a retry
        if self._reader is None:
            self._finish(owner, [], head.keep_alive and at == len(data))
        elif at < len(data):
            self._on_body_bytes(owner, data, at)

    def _on_body_bytes(self, owner: "Exchange", data: bytes, at: int) -> None:
        reader = self._reader
        assert reader is not None
        pieces, at = reader.feed(data, at)
        if pieces:
            owner.on_response_body(pieces)
        if reader.done and self.owner is owner:
            self._finish(owner, reader.trailers, owner.upstream_keeps_alive and at == len(data))

    def _finish(self, owner: "Exchange", trailers: list[bytes], keeps: bool) -> None:
        self._reader = None
        owner.on_response_end(self, trailers, keeps=keeps)

    def forget_response(self) -> None:
        """The response at hand is thrown away, all of it having been read."""
        self._reader = None
        self.transport.resume_reading()


def _reader_for(kind: BodyKind, head: ResponseHead) -> BodyReader | None:
    if kind is BodyKind.LENGTH:
        return LengthReader(head.content_length)
    if kind is BodyKind.CHUNKED:
        return ChunkedReader()
    if kind is BodyKind.UNTIL_CLOSE:
        return UntilCloseReader()
    return None
