"""What happens first to an accepted connection: where was it going, which chain takes it, is it HTTP."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, cast

from mesh.net.original_destination import original_destination
from sidecar.chains import ChainChoice, choose_chain
from sidecar.config import Direction, FilterChain, HttpFilter, Listener
from sidecar.detect import Protocol, sniff
from sidecar.downstream import DownstreamConnection
from sidecar.inbound import dispatch as inbound
from sidecar.tcp import TcpConnection
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.server import DataPlane

logger = logging.getLogger(__name__)


class Acceptor(asyncio.Protocol):
    """The first protocol of a connection; it hands the transport to the one that takes the connection."""

    __slots__ = (
        "_choice",
        "_data",
        "_destination",
        "_is_undecided",
        "_listener_key",
        "_server",
        "deadline",
        "transport",
        "wheel_at",
    )

    def __init__(self, server: "DataPlane", listener_key: str) -> None:
        self._server = server
        self._listener_key = listener_key
        self._data = b""
        self._choice: ChainChoice | None = None
        self._destination: tuple[str, int] | None = None
        self._is_undecided = False
        self.deadline = NEVER
        self.wheel_at = NEVER
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        plane = self._server.plane
        if plane.downstream_open >= plane.max_downstream_connections:
            plane.stats.downstream_refused += 1
            self.transport.abort()
            return
        listener = self._server.listener(self._listener_key)
        self._choice = self._choose(listener) if listener is not None else None
        choice = self._choice
        if choice is None:
            self.transport.abort()
        elif choice.if_http is None:
            self._hand_over(choice.otherwise)
        else:
            now = time.monotonic()
            self.deadline = now + choice.listener.detect_timeout_s
            self._is_undecided = True
            plane.undecided += 1
            plane.wheel.watch(self, now)

    def _choose(self, listener: Listener) -> ChainChoice | None:
        local = self.transport.get_extra_info("sockname")
        here = (str(local[0]), int(local[1])) if local else ("", 0)
        if not listener.use_original_dst:
            return choose_chain(listener, here[1])
        destination = original_destination(self.transport.get_extra_info("socket"))
        if destination is None or destination == here:
            # Not redirected: somebody dialled the interception port itself. Passing it on would dial ourselves for ever.
            self._server.plane.stats.loops_refused += 1
            logger.warning("connection straight to an interception port refused", extra={"listener": listener.name})
            return None
        self._destination = destination
        if listener.direction is Direction.INBOUND:
            return inbound.choose(listener, destination)
        return self._server.outbound.choose(listener, destination)

    def data_received(self, data: bytes) -> None:
        self._data += data
        choice = self._choice
        if choice is None:
            return  # refused; what still comes is not for us
        found = sniff(self._data)
        if found is Protocol.HTTP1:
            self._hand_over(choice.if_http)
        elif found is Protocol.OTHER:
            self._hand_over(choice.otherwise)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadline = NEVER
        self._decided()

    def _decided(self) -> None:
        if self._is_undecided:
            self._is_undecided = False
            self._server.plane.undecided -= 1

    def on_deadline(self, now: float) -> None:
        """Undecided for too long: perhaps the server is to talk first."""
        self.deadline = NEVER
        if self._choice is not None and not self.transport.is_closing():
            self._hand_over(self._choice.otherwise)

    def _hand_over(self, entry: tuple[str, FilterChain] | None) -> None:
        self.deadline = NEVER
        self._decided()
        choice = self._choice
        if entry is None or choice is None:
            self.transport.abort()
            return
        key, chain = entry
        plane = self._server.plane
        protocol: asyncio.Protocol
        if isinstance(chain.filter, HttpFilter):
            protocol = DownstreamConnection(plane, plane.site(choice.listener.name, key), self._destination)
        else:
            listener = choice.listener
            protocol = TcpConnection(plane, listener.name, listener.direction, chain.filter, self._destination)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._data:
            data, self._data = self._data, b""
            protocol.data_received(data)
