"""Relaying bytes between two TCP connections with back-pressure both ways and half-close."""

import asyncio
from collections.abc import Callable
from typing import cast


class RelayEnd(asyncio.Protocol):
    """One of two ends. What it receives goes to its peer; while the peer can't write, it does not read.

    What comes before there is a peer is kept, at most one read of the loop (256 KiB). An end of file is passed on (half-close);
    both close when both have ended or one breaks. `when_closed` is set when this end is gone.
    """

    def __init__(self, on_connected: "Callable[[RelayEnd], None] | None" = None) -> None:
        self._on_connected = on_connected
        self.when_closed = asyncio.Event()
        self._peer: RelayEnd | None = None
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; as little as possible is read before `join`."""
        self._transport = cast(asyncio.Transport, transport)
        # uvloop forgets this when it comes before its first read; then `data_received` says it again.
        self._transport.pause_reading()
        if self._on_connected is not None:
            self._on_connected(self)

    def join(self, peer: "RelayEnd") -> None:
        """Relay between the two from now on. Call it once, on either."""
        self._peer, peer._peer = peer, self
        if not (self._is_open() and peer._is_open()):
            self.abort()
            peer.abort()
            return
        for end in (self, peer):
            end._flush_early()

    def _flush_early(self) -> None:
        assert self._peer is not None
        assert self._transport is not None
        early, self._early = self._early, b""
        if early:
            self._peer._write(early)
        if self._has_ended:
            self._pass_end_on()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes for the peer."""
        if self._peer is not None:
            self._peer._write(data)
        elif self._transport is not None:
            self._early += data
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The other side sends no more; our direction stays open."""
        self._has_ended = True
        if self._peer is not None:
            self._pass_end_on()
        return True

    def _pass_end_on(self) -> None:
        peer = self._peer
        assert peer is not None
        if not peer._is_open() or peer._transport is None:
            self.close()
        elif peer._has_ended:
            # Both directions are over: closing sends what is still to be written.
            peer.close()
            self.close()
        else:
            peer._transport.write_eof()

    def pause_writing(self) -> None:
        """Our buffer is full: the peer stops reading."""
        if self._peer is not None and self._peer._transport is not None and self._peer._is_open():
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Our buffer has room again."""
        peer = self._peer
        if peer is not None and peer._transport is not None and peer._is_open() and not peer._has_ended:
            peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This end is gone; so is the peer, after what it still has to write."""
        self.when_closed.set()
        if self._peer is not None:
            if exc is not None:
                self._peer.abort()
            else:
                self._peer.close()

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self._is_open():
            self._transport.write(data)
