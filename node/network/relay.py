"""Relaying bytes between two TCP connections with back-pressure both ways and half-close."""

import asyncio
from collections.abc import Callable
from typing import cast


class RelayEnd(asyncio.Protocol):
    """One of two ends. What it receives goes to its peer; while the peer can't write, it does not read.

    An end of file is passed on (half-close); both close when both have ended or one breaks. `when_closed` is set when this end is gone.
    """

    def __init__(self, on_connected: "Callable[[RelayEnd], None] | None" = None) -> None:
        self._on_connected = on_connected
        self.when_closed = asyncio.Event()
        self._peer: RelayEnd | None = None
        self._transport: asyncio.Transport | None = None
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; nothing is read before `join`."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()
        if self._on_connected is not None:
            self._on_connected(self)

    def join(self, peer: "RelayEnd") -> None:
        """Relay between the two from now on. Call it once, on either."""
        self._peer, peer._peer = peer, self
        for end in (self, peer):
            if end._transport is not None and not end._transport.is_closing():
                end._transport.resume_reading()
            else:
                self.abort()
                peer.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes for the peer."""
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.write(data)

    def eof_received(self) -> bool:
        """The other side sends no more; True keeps our direction open."""
        self._has_ended = True
        peer = self._peer
        if peer is None or peer._transport is None or peer._transport.is_closing():
            return False
        if peer._has_ended:
            # Both directions are over: closing flushes what is still to be written.
            peer._transport.close()
            return False
        if peer._transport.can_write_eof():
            peer._transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Our buffer is full: the peer stops reading."""
        if self._peer is not None and self._peer._transport is not None and not self._peer._transport.is_closing():
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Our buffer has room again."""
        if self._peer is not None and self._peer._transport is not None and not self._peer._transport.is_closing():
            self._peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This end is gone; so is the peer, after what it still has to write."""
        self.when_closed.set()
        peer = self._peer
        if peer is not None and peer._transport is not None:
            if exc is not None:
                peer._transport.abort()
            else:
                peer._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()
