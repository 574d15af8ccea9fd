"""Asking the machine's resolvers for names outside the cluster, over one UDP socket from the port helper.

Bounds: 1,024 questions under way; more fail at once. Each resolver gets 2 s, in order. An answer counts only from the resolver asked, with
the id and the question sent. DEVIATION from a full forwarder: no TCP upstream; answers up to 4,096 bytes are asked for with EDNS, longer
ones arrive truncated and are handed on so.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype

logger = logging.getLogger(__name__)

_MAX_PENDING = 1024
_PAYLOAD_BYTES = 4096
_DNS_PORT = 53

OpenSocket = Callable[[], Awaitable[socket.socket]]


class _Pending:
    """One question sent."""

    def __init__(self, query: dns.message.Message, resolver: tuple[str, int]) -> None:
        self.query = query
        self.resolver = resolver
        self.reply: asyncio.Future[dns.message.Message] = asyncio.get_running_loop().create_future()


class DnsForwarder(asyncio.DatagramProtocol):
    """Questions and answers over one socket, opened at the first question."""

    def __init__(
        self,
        open_socket: OpenSocket | None,
        resolvers: tuple[str, ...],
        *,
        timeout_s: float = 2.0,
        port: int = _DNS_PORT,
    ) -> None:
        self._open_socket = open_socket
        self._resolvers = tuple((address, port) for address in resolvers)
        self._timeout_s = timeout_s
        self._transport: asyncio.DatagramTransport | None = None
        self._opening = asyncio.Lock()
        self._pending: dict[int, _Pending] = {}

    async def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message | None:
        """The first resolver's answer; None when none answers in time, there is none, or too many questions are under way."""
        for resolver in self._resolvers:
            if (reply := await self._ask_one(name, kind, resolver)) is not None:
                return reply
        return None

    async def _ask_one(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, resolver: tuple[str, int]
    ) -> dns.message.Message | None:
        transport = await self._ready_transport()
        if transport is None or len(self._pending) >= _MAX_PENDING:
            return None
        query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD_BYTES)
        query.id = self._free_id()
        pending = self._pending[query.id] = _Pending(query, resolver)
        try:
            transport.sendto(query.to_wire(), resolver)
            async with asyncio.timeout(self._timeout_s):
                return await pending.reply
        except (TimeoutError, OSError):
            return None
        finally:
            del self._pending[query.id]

    def _free_id(self) -> int:
        while (number := secrets.randbelow(1 << 16)) in self._pending:
            continue
        return number

    async def _ready_transport(self) -> asyncio.DatagramTransport | None:
        async with self._opening:
            if self._open_socket is None:
                return None
            if self._transport is None or self._transport.is_closing():
                opened = await self._open_socket()
                loop = asyncio.get_running_loop()
                self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=opened)
            return self._transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """An answer, perhaps."""
        pending = self._pending.get(int.from_bytes(data[:2], "big"))
        if pending is None or tuple(addr[:2]) != pending.resolver or pending.reply.done():
            return
        try:
            reply = dns.message.from_wire(data, raise_on_truncation=False)
        except (dns.exception.DNSException, ValueError):
            return
        if pending.query.is_response(reply):
            pending.reply.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: the timeout takes care of it."""

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()
