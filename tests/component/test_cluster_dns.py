"""The cluster DNS over loopback sockets: forwarding, aliases, malformed packets, truncation."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from mesh.net.loop import run as run_on_loop
from mesh.net.tasks import cancel_and_wait, spawn
from node.network.dns_forwarder import DnsForwarder
from node.network.dns_server import DnsServer
from node.network.dns_zone import ClusterZone
from node.network.services import ServiceTable
from tests.unit.node.network.tables import put_service, put_slice, ready

pytestmark = pytest.mark.component

Answer = Callable[[dns.message.Message], bytes | None]


class Upstream(asyncio.DatagramProtocol):
    """A resolver of the machine."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # the loop's own narrower type
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].name.to_text())
        if (reply := self.answer(query)) is not None:
            self.transport.sendto(reply, addr)


def address(query: dns.message.Message) -> bytes:
    reply = dns.message.make_response(query)
    reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.7"))
    return reply.to_wire()


def table() -> ServiceTable:
    made = ServiceTable()
    put_service(made, "web", clusterIP="10.96.0.5", ports=[{"port": 80, "protocol": "TCP"}])
    put_service(made, "out", type="ExternalName", externalName="example.org")
    put_service(made, "alias", type="ExternalName", externalName="web.default.svc.cluster.local")
    put_service(made, "loop", type="ExternalName", externalName="loop.default.svc.cluster.local")
    put_service(made, "many", clusterIP="None", ports=[{"port": 80, "protocol": "TCP"}])
    put_slice(made, "many", [ready(f"10.244.1.{n}") for n in range(2, 202)], [{"port": 80, "protocol": "TCP"}])
    return made


@contextlib.asynccontextmanager
async def serving(answer: Answer | None) -> AsyncIterator[tuple[DnsServer, Upstream | None]]:
    loop = asyncio.get_running_loop()
    upstream: Upstream | None = None
    forwarder = DnsForwarder(None, ())
    if answer is not None:
        upstream = Upstream(answer)
        transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]

        async def open_socket() -> socket.socket:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setblocking(False)
            return opened

        forwarder = DnsForwarder(open_socket, ("127.0.0.1",), timeout_s=0.2, port=port)
    server = DnsServer(
        ClusterZone(table(), domain="cluster.local", service_cidr="10.96.0.0/16"), forwarder, lambda _: "default"
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = spawn(tasks, server.run("127.0.0.1", 0), name="dns")
        await server.is_serving.wait()
        try:
            yield server, upstream
        finally:
            await cancel_and_wait(running)
            if upstream is not None:
                upstream.transport.close()


async def ask(
    server: DnsServer, name: str, kind: str = "A", *, tcp: bool = False, edns: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else False, payload=1232)
    send = dns.query.tcp if tcp else dns.query.udp
    reply = await asyncio.to_thread(send, query, "127.0.0.1", 5, server.port)
    assert isinstance(reply, dns.message.Message)
    return reply


def values(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


def test_other_names_are_forwarded() -> None:
    async def run() -> None:
        async with serving(address) as (server, upstream):
            for tcp in (False, True):
                reply = await ask(server, "example.org", tcp=tcp)
                assert values(reply) == ["192.0.2.7"]
            assert upstream is not None
            assert upstream.asked == ["example.org."] * 2
            await ask(server, "nope.default.svc.cluster.local")
            assert len(upstream.asked) == 2, "a name of the cluster left it"

    run_on_loop(run())


def test_external_names_are_followed_outside_and_inside() -> None:
    async def run() -> None:
        async with serving(address) as (server, _):
            assert values(await ask(server, "out.default.svc.cluster.local")) == ["example.org.", "192.0.2.7"]
            assert values(await ask(server, "alias.default.svc.cluster.local")) == [
                "web.default.svc.cluster.local.",
                "10.96.0.5",
            ]
            assert (await ask(server, "loop.default.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL

    run_on_loop(run())


def test_a_silent_or_missing_resolver_is_servfail() -> None:
    async def run(answer: Answer | None) -> None:
        async with serving(answer) as (server, _):
            assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL

    run_on_loop(run(lambda _: None))
    run_on_loop(run(None))


def test_an_answer_to_another_question_does_not_count() -> None:
    def forged(query: dns.message.Message) -> bytes:
        other = dns.message.make_query("evil.example", "A")
        other.id = query.id
        return address(other)

    async def run() -> None:
        async with serving(forged) as (server, _):
            assert (await ask(server, "example.org")).rcode() == dns.rcode.SERVFAIL

    run_on_loop(run())


def test_long_answers_are_cut_over_udp_and_whole_over_tcp() -> None:
    async def run() -> None:
        async with serving(None) as (server, _):
            cut = await ask(server, "many.default.svc.cluster.local")
            assert cut.flags & dns.flags.TC
            assert values(cut) == []
            whole = await ask(server, "many.default.svc.cluster.local", tcp=True)
            assert len(values(whole)) == 200

    run_on_loop(run())


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fnot a name", dns.rcode.FORMERR),
        (b"\x12\x34\x01\x00" + b"\x00" * 8, dns.rcode.REFUSED),
        (b"\x12\x34\x20\x00" + b"\x00" * 8, dns.rcode.NOTIMP),
    ],
)
def test_bad_packets_get_an_error_and_the_server_goes_on(packet: bytes, rcode: dns.rcode.Rcode) -> None:
    async def run() -> None:
        async with serving(None) as (server, _):

            def send() -> bytes:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(5)
                    client.sendto(b"\x00", ("127.0.0.1", server.port))
                    client.sendto(packet, ("127.0.0.1", server.port))
                    return client.recv(4096)

            reply = dns.message.from_wire(await asyncio.to_thread(send))
            assert (reply.id, reply.rcode()) == (0x1234, rcode)
            assert values(await ask(server, "web")) == ["10.96.0.5"]

    run_on_loop(run())
