"""The real interception rules with our data plane behind them: `unshare -rn python -m tests.component.interception_scenario`.

Run in a network namespace of its own. Exit code 0 when connections to addresses that exist nowhere, or only without the proxy,
went where the configuration says.
"""

import asyncio
import subprocess

from mesh.balance.endpoint import Endpoint
from mesh.routing.table import Forward, Route, RouteTable, VirtualHost, WeightedCluster
from node.network.interception import interception_rules
from sidecar.config import (
    Cluster,
    ClusterKind,
    Direction,
    FilterChain,
    HttpFilter,
    Listener,
    Snapshot,
    TcpFilter,
)
from tests.component.plane_harness import Client, origin, run, running

SERVICE = "10.96.0.9"
ELSEWHERE = "10.9.9.9"


def set_up() -> None:
    """Loopback, an interface that swallows everything, one more own address, and the rules of a pod."""
    for command in (
        "ip link set lo up",
        "ip link add swallow type veth peer name other",
        "ip link set other up",
        "ip link set swallow up",
        f"ip address add {ELSEWHERE}/32 dev lo",
        "ip address add 10.244.1.2/24 dev swallow",
        "ip route add default dev swallow",
    ):
        subprocess.run(command.split(), check=True)
    subprocess.run(["nft", "-f", "-"], input=interception_rules(), text=True, check=True)


def config(web: int) -> Snapshot:
    """An HTTP listener for port 80 of any address, everything else passed through."""
    passthrough = FilterChain(filter=TcpFilter(clusters=(WeightedCluster(name="PassthroughCluster"),)))
    route = Route(action=Forward(clusters=(WeightedCluster(name="web"),)))
    table = RouteTable(name="80", virtual_hosts=(VirtualHost(name="web", domains=("web",), routes=(route,)),))
    return Snapshot(
        listeners=(
            Listener(
                name="virtualOutbound", address="0.0.0.0", port=15001, use_original_dst=True, chains=(passthrough,)
            ),
            Listener(
                name="0.0.0.0_80",
                address="0.0.0.0",
                port=80,
                bind=False,
                chains=(FilterChain(filter=HttpFilter(route_table="80")),),
            ),
            Listener(
                name="virtualInbound",
                address="0.0.0.0",
                port=15006,
                use_original_dst=True,
                direction=Direction.INBOUND,
                chains=(passthrough,),
            ),
        ),
        route_tables={"80": table},
        clusters={
            "web": Cluster(name="web", endpoints=(Endpoint(address=ELSEWHERE, port=web),)),
            "PassthroughCluster": Cluster(name="PassthroughCluster", kind=ClusterKind.ORIGINAL_DST),
        },
    )


async def connect(address: str, port: int) -> Client:
    return Client(*await asyncio.open_connection(address, port))


async def scenario() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())

    async with origin() as web, origin(script=shout) as raw, running(config(web.port)) as plane:
        web_server = await asyncio.start_server(web.serve, ELSEWHERE, web.port)
        raw_server = await asyncio.start_server(raw.serve, ELSEWHERE, raw.port)
        user = await connect(SERVICE, 80)
        answer = await user.ask(host="web")
        assert (answer.status, answer.body) == (200, b"ok"), answer
        assert (await user.ask(host="unknown")).status == 404
        user.writer.close()

        user = await connect(ELSEWHERE, raw.port)
        user.send(b"hello\n")
        assert await user.reader.read() == b"HELLO\n"
        user.writer.close()
        (series,) = plane.plane.stats.all_tcp()
        assert series.key.endpoint == f"{ELSEWHERE}:{raw.port}", series

        for address in ("127.0.0.1", "10.244.1.2"):
            for port in (15001, 15006):
                try:
                    user = await connect(address, port)
                except ConnectionError:
                    continue  # the rules' guard was first
                assert await user.at_eof(), f"{address}:{port} was served"
                user.writer.close()
        web_server.close()
        raw_server.close()


if __name__ == "__main__":
    set_up()
    run(scenario())
