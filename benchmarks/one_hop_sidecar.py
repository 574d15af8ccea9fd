"""Our sidecar's data plane with the benchmark's configuration: python -m benchmarks.one_hop_sidecar LISTEN STABLE STABLE CANARY."""

import asyncio
import signal
import sys

from mesh.balance.endpoint import Endpoint, LbPolicy
from mesh.net.loop import run
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryOn, RetryPolicy
from mesh.routing.table import Forward, Route, RouteTable, VirtualHost, WeightedCluster
from sidecar.config import Cluster, FilterChain, HttpFilter, Listener, Snapshot
from sidecar.server import DataPlane


def snapshot(listen: int, stable: list[int], canary: list[int]) -> Snapshot:
    """The same as `one_hop_config.envoy_bootstrap` says."""
    retry = RetryPolicy(conditions=RetryOn.SERVER_ERROR | RetryOn.RESET | RetryOn.CONNECT_FAILURE, max_retries=2)
    split = (WeightedCluster(name="stable", weight=90), WeightedCluster(name="canary", weight=10))
    host = VirtualHost(name="all", domains=("*",), routes=(Route(action=Forward(clusters=split, retry=retry)),))
    table = RouteTable(name="one_hop", virtual_hosts=(host,))
    chain = FilterChain(filter=HttpFilter(stat_prefix="one_hop", inline_routes=table))
    return Snapshot(
        listeners=(Listener(name="one_hop", address="127.0.0.1", port=listen, chains=(chain,)),),
        clusters={name: _cluster(name, ports) for name, ports in (("stable", stable), ("canary", canary))},
    )


def _cluster(name: str, ports: list[int]) -> Cluster:
    return Cluster(
        name=name,
        lb_policy=LbPolicy.LEAST_REQUEST,
        endpoints=tuple(Endpoint(address="127.0.0.1", port=port) for port in ports),
        connect_timeout_s=1.0,
        outlier=OutlierConfig(consecutive_5xx=5, base_ejection_s=30.0, max_ejection_percent=50),
    )


async def serve(config: Snapshot) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        plane = DataPlane(tasks)
        await plane.apply(config)
        await stop.wait()
        plane.close()


if __name__ == "__main__":
    listen, *upstreams = map(int, sys.argv[1:])
    run(serve(snapshot(listen, upstreams[:-1], upstreams[-1:])))
