"""Scenarios of the node's network, each run in a process in namespaces of its own: `python -m tests.component.network_scenarios NAME`.

The process makes a whole cluster network (bridge, nodes, pods) and asserts on it with real sockets.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import dns.message
import dns.query
import dns.rcode

from mesh.api.core import Service
from mesh.api.discovery import EndpointSlice
from mesh.client.informer import Change, ChangeType
from mesh.net import linux
from mesh.net.tasks import cancel_and_wait, spawn
from node.cluster.layout import NodeLayout
from node.cluster.links import set_up_links
from node.network.config import NetworkConfig
from node.network.dns_forwarder import DnsForwarder
from node.network.dns_server import DnsServer
from node.network.dns_zone import ClusterZone
from node.network.node_network import NodeNetwork, PodNetwork
from node.network.service_proxy import ServiceProxy
from node.network.services import ServiceTable

T = TypeVar("T")
_NODES = (NodeLayout(1), NodeLayout(2))
_SO_ORIGINAL_DST = 80
_MARK = 1337


def in_namespace(path: Path, work: Callable[[], T]) -> T:
    """Run `work` on a thread inside the network namespace at `path`."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            with path.open("rb") as there:
                linux.setns(there.fileno(), linux.CLONE_NEWNET)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def listen(pod: PodNetwork, port: int, name: bytes) -> socket.socket:
    """A server in a pod that says its name, the caller's address and the original destination, and closes."""

    def open_listener() -> socket.socket:
        return socket.create_server(("0.0.0.0", port))

    listener = in_namespace(pod.netns_path, open_listener)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = listener.accept()
                with connection:
                    original = connection.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16) if name == b"proxy" else b""
                    connection.sendall(b" ".join([name, peer[0].encode(), _address(original)]))

    threading.Thread(target=serve, daemon=True).start()
    return listener


def _address(raw: bytes) -> bytes:
    if not raw:
        return b"-"
    port, host = struct.unpack_from("!2xH4s", raw)
    return f"{socket.inet_ntoa(host)}:{port}".encode()


def call(source: Path, address: str, port: int, *, mark: int = 0) -> list[str]:
    """What the server at `address` answers a client in `source`: [name, caller, original destination]."""

    def connect() -> list[str]:
        with socket.socket() as client:
            client.settimeout(3)
            if mark:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            client.connect((address, port))
            return client.makefile().read().split()

    return in_namespace(source, connect)


def network(node: NodeLayout, state: Path) -> NodeNetwork:
    """The network of one node; its thread is started inside the node's namespace."""
    return in_namespace(
        node.netns,
        lambda: NodeNetwork(NetworkConfig(node_name=node.name, pod_cidr=node.pod_cidr, state_dir=state / node.name)),
    )


@contextlib.contextmanager
def inside(path: Path) -> Iterator[None]:
    """The calling thread in another network namespace, for the block."""
    with open("/proc/thread-self/ns/net", "rb") as home, path.open("rb") as there:
        linux.setns(there.fileno(), linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns(home.fileno(), linux.CLONE_NEWNET)


class Cluster:
    """Two nodes; node-1 is where the main thread lives."""

    def __init__(self, first: NodeNetwork, second: NodeNetwork, state: Path) -> None:
        self.first = first
        self.second = second
        self.state = state


async def with_cluster(work: Callable[[Cluster], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        with inside(_NODES[1].netns):
            second = network(_NODES[1], state)
            await second.set_up()
        # A thread of the loop's pool was born in node-2: begin with a new pool.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        # The main thread stays in node-1, as an agent would.
        with _NODES[0].netns.open("rb") as there:
            linux.setns(there.fileno(), linux.CLONE_NEWNET)
        first = network(_NODES[0], state)
        await first.set_up()
        try:
            await work(Cluster(first, second, state))
        finally:
            await first.close()
            await second.close()


def service(table: ServiceTable, cluster_ip: str, port: int, backends: list[str], target_port: int) -> None:
    """Put Service default/web with these endpoints into the table."""
    meta = {"name": "web", "namespace": "default"}
    table.on_service(
        Change(
            ChangeType.ADDED,
            None,
            Service.of(
                {"metadata": meta, "spec": {"clusterIP": cluster_ip, "ports": [{"port": port, "protocol": "TCP"}]}}
            ),
        )
    )
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in backends]
    table.on_slice(
        Change(
            ChangeType.ADDED,
            None,
            EndpointSlice.of(
                {
                    "metadata": {**meta, "labels": {"kubernetes.io/service-name": "web"}},
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": [{"port": target_port, "protocol": "TCP"}],
                }
            ),
        )
    )


async def pods_reach_each_other_across_nodes() -> None:
    async def work(cluster: Cluster) -> None:
        a = await cluster.first.add_pod("uid-a", "default", "a", intercept=False)
        b = await cluster.first.add_pod("uid-b", "default", "b", intercept=False)
        c = await cluster.second.add_pod("uid-c", "default", "c", intercept=False)
        with listen(b, 80, b"b"), listen(c, 8080, b"c"):
            assert call(a.netns_path, b.address, 80) == ["b", a.address, "-"]
            assert call(a.netns_path, c.address, 8080) == ["c", a.address, "-"]
            assert call(_NODES[1].netns, b.address, 80) == ["b", "172.30.0.12", "-"]

    await with_cluster(work)


async def addresses_and_namespaces_survive_the_agent() -> None:
    async def work(cluster: Cluster) -> None:
        a = await cluster.first.add_pod("uid-a", "default", "a", intercept=True)
        before = a.netns_path.stat().st_ino
        again = network(_NODES[0], cluster.state)
        await again.set_up()
        assert again.known_pods() == {"uid-a": a}
        assert await again.add_pod("uid-a", "default", "a", intercept=True) == a
        assert a.netns_path.stat().st_ino == before, "the namespace was made anew"
        await again.remove_pod("uid-a")
        await again.remove_pod("uid-a")
        assert not a.netns_path.exists()
        assert again.known_pods() == {}
        b = await again.add_pod("uid-b", "default", "b", intercept=False)
        assert b.address != a.address, "a released address came back at once"
        await again.close()

    await with_cluster(work)


async def a_half_made_pod_is_made_again() -> None:
    async def work(cluster: Cluster) -> None:
        a = await cluster.first.add_pod("uid-a", "default", "a", intercept=False)
        linux.umount(str(a.netns_path), linux.MNT_DETACH)
        assert await cluster.first.add_pod("uid-a", "default", "a", intercept=False) == a
        b = await cluster.first.add_pod("uid-b", "default", "b", intercept=False)
        with listen(a, 80, b"a"):
            assert call(b.netns_path, a.address, 80) == ["a", b.address, "-"]

    await with_cluster(work)


async def interception_leads_both_ways_through_the_sidecar() -> None:
    async def work(cluster: Cluster) -> None:
        client = await cluster.first.add_pod("uid-client", "default", "client", intercept=True)
        server = await cluster.second.add_pod("uid-server", "default", "server", intercept=True)
        plain = await cluster.first.add_pod("uid-plain", "default", "plain", intercept=False)
        with listen(client, 15001, b"proxy"), listen(server, 15006, b"proxy"), listen(server, 8080, b"app"):
            # Outbound: to a pod and to an address that exists nowhere.
            assert call(client.netns_path, server.address, 8080)[::2] == ["proxy", f"{server.address}:8080"]
            assert call(client.netns_path, "10.96.7.7", 80)[::2] == ["proxy", "10.96.7.7:80"]
            # The sidecar's own sockets pass, and meet the other side's inbound.
            assert call(client.netns_path, server.address, 8080, mark=_MARK) == [
                "proxy",
                client.address,
                f"{server.address}:8080",
            ]
            assert call(plain.netns_path, server.address, 8080) == ["proxy", plain.address, f"{server.address}:8080"]
            # Inside the pod the app is reached directly, over loopback and with the mark.
            assert call(server.netns_path, "127.0.0.1", 8080)[0] == "app"
            assert call(server.netns_path, server.address, 8080, mark=_MARK)[0] == "app"
            # Straight to the redirect ports: refused.
            for port in (15001, 15006):
                try:
                    call(plain.netns_path, server.address, port)
                except ConnectionRefusedError:
                    continue
                raise AssertionError(f"port {port} answered a direct connection")

    await with_cluster(work)


async def cluster_ips_reach_ready_endpoints() -> None:
    async def work(cluster: Cluster) -> None:
        a = await cluster.first.add_pod("uid-a", "default", "a", intercept=False)
        b = await cluster.first.add_pod("uid-b", "default", "b", intercept=False)
        c = await cluster.second.add_pod("uid-c", "default", "c", intercept=False)
        table = ServiceTable()
        service(table, "10.96.0.50", 80, [b.address, c.address], 8080)
        written = asyncio.Event()
        loop = asyncio.get_running_loop()

        def apply(text: str) -> None:
            from node.network.rules import apply_rules

            apply_rules(text)
            loop.call_soon_threadsafe(written.set)

        proxy = ServiceProxy(cluster.first.config, table, apply)
        with listen(b, 8080, b"b"), listen(c, 8080, b"c"), listen(a, 8080, b"a"):
            async with asyncio.TaskGroup() as tasks:
                running = spawn(tasks, proxy.run(), name="proxy")
                await written.wait()
                answers = {call(a.netns_path, "10.96.0.50", 80)[0] for _ in range(40)}
                assert answers == {"b", "c"}, answers
                assert call(_NODES[0].netns, "10.96.0.50", 80)[0] in "bc"
                # A pod that meets itself behind the Service.
                written.clear()
                service(table, "10.96.0.50", 80, [a.address], 8080)
                await written.wait()
                assert call(a.netns_path, "10.96.0.50", 80)[0] == "a"
                # No endpoint: refused at once, and so is a port the Service doesn't have.
                written.clear()
                service(table, "10.96.0.50", 80, [], 8080)
                await written.wait()
                for port in (80, 81):
                    try:
                        call(a.netns_path, "10.96.0.50", port)
                    except ConnectionRefusedError:
                        continue
                    raise AssertionError("a Service without endpoints answered")
                await cancel_and_wait(running)

    await with_cluster(work)


async def pods_ask_the_cluster_dns() -> None:
    async def work(cluster: Cluster) -> None:
        a = await cluster.first.add_pod("uid-a", "shop", "a", intercept=False)
        table = ServiceTable()
        service(table, "10.96.0.50", 80, ["10.244.1.9"], 8080)
        zone = ClusterZone(table, domain="cluster.local", service_cidr="10.96.0.0/16")
        server = DnsServer(zone, DnsForwarder(None, ()), lambda address: "shop" if address == a.address else "default")

        def ask(name: str, *, tcp: bool = False) -> dns.message.Message:
            query = dns.message.make_query(name, "A")
            send = dns.query.tcp if tcp else dns.query.udp
            return in_namespace(a.netns_path, lambda: send(query, "10.96.0.10", timeout=3))

        async with asyncio.TaskGroup() as tasks:
            running = spawn(tasks, server.run("10.96.0.10"), name="dns")
            await server.is_serving.wait()
            for tcp in (False, True):
                reply = await asyncio.to_thread(ask, "web.default.svc.cluster.local", tcp=tcp)
                assert [rdata.to_text() for rdata in reply.answer[0]] == ["10.96.0.50"], reply
            missing = await asyncio.to_thread(ask, "nope.default.svc.cluster.local")
            assert missing.rcode() == dns.rcode.NXDOMAIN
            outside = await asyncio.to_thread(ask, "example.org")
            assert outside.rcode() == dns.rcode.SERVFAIL
            await cancel_and_wait(running)

    await with_cluster(work)


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        pods_reach_each_other_across_nodes,
        addresses_and_namespaces_survive_the_agent,
        a_half_made_pod_is_made_again,
        interception_leads_both_ways_through_the_sidecar,
        cluster_ips_reach_ready_endpoints,
        pods_ask_the_cluster_dns,
    )
}


def main() -> int:
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", "/run", "tmpfs")
    set_up_links(_NODES)
    asyncio.run(SCENARIOS[sys.argv[1]]())
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Server threads of the pods are still waiting; there is nothing to clean up after.
    os._exit(status)
