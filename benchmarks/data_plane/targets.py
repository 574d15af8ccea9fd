"""What every proxy's configuration is made from, in no proxy's language."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.data_plane.cases import Setup

CANARY_PERCENT = 10
TRACED_PERCENT = 1
CLUSTERS = ("stable", "canary")

DIFFERENCES = {
    "meshwork": "All of it; the file is Envoy's. Also counts Istio's metrics per route and endpoint.",
    "envoy": "All of it; one worker, default statistics, no access log. Routes are tried in order.",
    "haproxy": "Split by a random number; retries by status and connection failure; least connections; passive health by "
    "observed errors; statistics per backend and server; default buffers, no splicing. No traces: 2.6 in Debian exports no "
    "OTLP. Routes are map files (trees and hashes).",
    "nginx": "Split by a hash of the request id; next upstream on error; least connections; passive health by failures; "
    "default buffers, uploads not stored first. No statistics per route, and no traces: nginx-light has no OpenTelemetry "
    "module. Routes are locations (a tree) and a map (a hash).",
}
"""What is not alike, for people. All of them make a request id when there is none, and set x-forwarded-proto."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One route of a big table. All of them lead to one of the two clusters."""

    number: int
    kind: Literal["exact", "prefix", "header"]
    cluster: str

    @property
    def path(self) -> str:
        """What the path must be (exact) or begin with."""
        if self.kind == "header":
            return "/shop/by-header/"
        return f"/shop/item-{self.number}" if self.kind == "exact" else f"/shop/tree-{self.number}/"

    @property
    def header(self) -> str:
        """The value that `x-route` must have; empty: any."""
        return f"r-{self.number}" if self.kind == "header" else ""

    @property
    def request_path(self) -> str:
        """A path that takes this route; `@ID@` stands for something unique."""
        return f"{self.path}?id=@ID@" if self.kind == "exact" else f"{self.path}orders/@ID@"


def route_entries(count: int) -> tuple[RouteEntry, ...]:
    """`count` routes: a third each by exact path, prefix and header; every tenth to the canary."""
    kinds: tuple[Literal["exact", "prefix", "header"], ...] = ("exact", "prefix", "header")
    return tuple(
        RouteEntry(number=n, kind=kinds[n % 3], cluster="canary" if n % CANARY_PERCENT == 0 else "stable")
        for n in range(count)
    )


def cluster_name(number: int) -> str:
    """The clusters of the memory cases; also their host name."""
    return f"svc-{number}.shop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One proxy's place."""

    setup: Setup
    listen: int
    """Port on 127.0.0.1."""
    stable: tuple[int, ...]
    """Ports of the endpoints."""
    canary: tuple[int, ...]
    collector: int
    """Port that takes OTLP over gRPC."""
    is_resilient: bool = True
    """Has the split, retries, outlier detection and least request. The second of two hops does not, as at inbound."""
    service: str = "bench"
    """Service name in spans."""

    @property
    def is_traced(self) -> bool:
        return self.setup.features
