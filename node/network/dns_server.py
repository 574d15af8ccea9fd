"""The cluster DNS of one node: UDP and TCP on the DNS address, answers from the Services, the rest forwarded.

Bounds: 512 questions being forwarded, 128 TCP connections of 10 s idle time; what comes on top is answered SERVFAIL (UDP) or
closed (TCP).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from mesh.net.errors import NetError
from mesh.net.tasks import spawn
from node.network.dns_forwarder import DnsForwarder
from node.network.dns_zone import ClusterZone, ZoneAnswer
from node.network.errors import NetworkError

logger = logging.getLogger(__name__)

_MAX_FORWARDED = 512
_MAX_CONNECTIONS = 128
_IDLE_S = 10.0
_UDP_BYTES = 512
_MAX_UDP_BYTES = 1232
_MAX_ALIASES = 8

NamespaceOf = Callable[[str], str]
"""A client's address -> its namespace."""


class DnsServer:
    """Listens on one address. `namespace_of` tells whose short names a client means."""

    def __init__(self, zone: ClusterZone, forwarder: DnsForwarder, namespace_of: NamespaceOf) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._namespace_of = namespace_of
        self._forwarded = 0
        self._connections = 0
        self.is_serving = asyncio.Event()
        self.port = 0
        """The port in use, once serving."""

    async def run(self, address: str, port: int = 53) -> None:
        """Serve until cancelled. Raises NetworkError when the address can't be listened on."""
        async with asyncio.TaskGroup() as tasks:
            transport, server = await self._listen(address, port, tasks)
            try:
                self.is_serving.set()
                async with server:
                    await server.serve_forever()
            finally:
                transport.close()
                self._forwarder.close()

    async def _listen(
        self, address: str, port: int, tasks: asyncio.TaskGroup
    ) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
        loop = asyncio.get_running_loop()
        try:
            server = await asyncio.start_server(self._serve_connection, address, port)
            self.port = int(server.sockets[0].getsockname()[1])
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _UdpProtocol(self, tasks), local_addr=(address, self.port)
                )
            except OSError:
                server.close()
                raise
        except OSError as error:
            raise NetworkError(f"cluster DNS on {address}:{port}: {error.strerror or error}") from error
        return transport, server

    def answer_now(self, wire: bytes, client: str) -> "dns.message.Message | _Question | None":
        """The answer, or what must be asked elsewhere first; None for what deserves no answer."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            return None
        if query.opcode() != dns.opcode.QUERY:
            return _reply(query, dns.rcode.NOTIMP)
        if len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
            return _reply(query, dns.rcode.REFUSED)
        asked = query.question[0]
        found = self._zone.resolve(asked.name, asked.rdtype, self._namespace_of(client))
        if found is None:
            return _Question(query, asked.name, asked.rdtype)
        if found.alias is not None:
            return _Question(query, found.alias, asked.rdtype, found)
        return _answered(query, found)

    async def ask_elsewhere(self, question: "_Question", client: str) -> dns.message.Message:
        """The answer to a name outside the cluster, or to an alias that leads there."""
        if self._forwarded >= _MAX_FORWARDED:
            return _reply(question.query, dns.rcode.SERVFAIL)
        self._forwarded += 1
        try:
            return await self._resolve_alias(question, client)
        except NetError as error:
            logger.warning("no socket to forward with", extra={"reason": str(error)})
            return _reply(question.query, dns.rcode.SERVFAIL)
        finally:
            self._forwarded -= 1

    async def _resolve_alias(self, question: "_Question", client: str) -> dns.message.Message:
        answer = _reply(question.query, dns.rcode.NOERROR)
        name, found = question.name, question.found
        for _ in range(_MAX_ALIASES):
            if found is not None:
                answer.answer.extend(found.answer)
                if found.alias is None:
                    answer.set_rcode(found.rcode)
                    return answer
                name = found.alias
                found = self._zone.resolve(name, question.kind, self._namespace_of(client))
            if found is None:
                return _merged(answer, await self._forwarder.ask(name, question.kind))
        return _reply(question.query, dns.rcode.SERVFAIL)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= _MAX_CONNECTIONS:
                await self._serve_stream(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = str(writer.get_extra_info("peername")[0])
        while True:
            async with asyncio.timeout(_IDLE_S):
                size = int.from_bytes(await reader.readexactly(2), "big")
                wire = await reader.readexactly(size)
            found = self.answer_now(wire, client)
            if isinstance(found, _Question):
                found = await self.ask_elsewhere(found, client)
            if found is None:
                return
            packet = _to_wire(found, 65535)
            writer.write(len(packet).to_bytes(2, "big") + packet)
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()


class _Question:
    """Something to ask elsewhere on behalf of `query`."""

    __slots__ = ("found", "kind", "name", "query")

    def __init__(
        self,
        query: dns.message.Message,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        found: ZoneAnswer | None = None,
    ) -> None:
        self.query = query
        self.name = name
        self.kind = kind
        self.found = found


class _UdpProtocol(asyncio.DatagramProtocol):
    """Answers what it can at once; the rest becomes a task."""

    def __init__(self, server: DnsServer, tasks: asyncio.TaskGroup) -> None:
        self._server = server
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One question."""
        found = self._server.answer_now(data, addr[0])
        if isinstance(found, _Question):
            spawn(self._tasks, self._forward(found, addr), name="dns forward")
        elif found is not None:
            self._send(found, addr)

    async def _forward(self, question: _Question, addr: tuple[str, int]) -> None:
        self._send(await self._server.ask_elsewhere(question, addr[0]), addr)

    def _send(self, answer: dns.message.Message, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(_to_wire(answer, _room(answer)), addr)

    def error_received(self, exc: Exception) -> None:
        """A client that went away."""


def _reply(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True, our_payload=_MAX_UDP_BYTES)
    # How much the client takes, kept where `_room` finds it.
    reply.request_payload = query.payload if query.edns >= 0 else _UDP_BYTES
    reply.set_rcode(rcode)
    return reply


def _answered(query: dns.message.Message, found: ZoneAnswer) -> dns.message.Message:
    reply = _reply(query, found.rcode)
    reply.flags |= dns.flags.AA
    reply.answer.extend(found.answer)
    reply.authority.extend(found.authority)
    reply.additional.extend(found.additional)
    return reply


def _merged(answer: dns.message.Message, upstream: dns.message.Message | None) -> dns.message.Message:
    if upstream is None:
        answer.set_rcode(dns.rcode.SERVFAIL)
        return answer
    answer.set_rcode(upstream.rcode())
    answer.flags |= upstream.flags & dns.flags.TC
    answer.answer.extend(upstream.answer)
    answer.authority.extend(upstream.authority)
    return answer


def _format_error(wire: bytes) -> dns.message.Message | None:
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    reply = dns.message.Message(id=int.from_bytes(wire[:2], "big"))
    reply.flags = dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply


def _room(answer: dns.message.Message) -> int:
    return max(_UDP_BYTES, min(int(answer.request_payload), _MAX_UDP_BYTES))


def _to_wire(answer: dns.message.Message, max_bytes: int) -> bytes:
    """The packet; cut to the question and marked truncated when it does not fit."""
    try:
        return answer.to_wire(max_size=max_bytes)
    except dns.exception.TooBig:
        answer.flags |= dns.flags.TC
        for section in (answer.answer, answer.authority, answer.additional):
            section.clear()
        return answer.to_wire(max_size=max_bytes)
