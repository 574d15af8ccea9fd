"""Puts decoded resources together into a snapshot once every reference can be followed. Pure.

Resources arrive one type at a time; a cluster may come before its endpoints and a listener before its routes. `staged` holds what
has arrived, `good` what the last applied snapshot was made of: when a snapshot turns out not to work, staging starts again from there.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from mesh.balance.endpoint import LoadAssignment
from mesh.routing.table import RouteTable
from mesh.xds.decode_endpoints import decode_assignment
from mesh.xds.decode_routes import KnownRoutes, decode_route_table
from mesh.xds.errors import DecodeError
from mesh.xds.message import unpack
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.config import HttpFilter, Listener, Snapshot
from sidecar.decode.clusters import DecodedCluster, decode_cluster
from sidecar.decode.listeners import decode_listener

NO_ENDPOINTS: Final = LoadAssignment()


@dataclass(slots=True)
class Resources:
    """Decoded resources by name."""

    listeners: dict[str, Listener] = field(default_factory=dict)
    clusters: dict[str, DecodedCluster] = field(default_factory=dict)
    routes: dict[str, RouteTable] = field(default_factory=dict)
    endpoints: dict[str, LoadAssignment] = field(default_factory=dict)

    def copy(self) -> "Resources":
        """A copy whose changes don't show here."""
        return Resources(dict(self.listeners), dict(self.clusters), dict(self.routes), dict(self.endpoints))

    def of_type(self, type_url: str) -> dict[str, Any]:
        """The mapping that holds resources of a type."""
        held: dict[str, dict[str, Any]] = {
            LISTENER: self.listeners,
            CLUSTER: self.clusters,
            ROUTE: self.routes,
            ENDPOINT: self.endpoints,
        }
        return held[type_url]

    def wanted_routes(self) -> frozenset[str]:
        """The route tables that listeners name."""
        return frozenset(
            chain.filter.route_table
            for listener in self.listeners.values()
            for chain in listener.chains
            if isinstance(chain.filter, HttpFilter) and chain.filter.inline_routes is None
        )

    def wanted_endpoints(self) -> frozenset[str]:
        """The endpoint assignments that clusters name."""
        return frozenset(found.eds_name for found in self.clusters.values() if found.eds_name)

    def missing(self) -> tuple[str, ...]:
        """What is named but has not arrived, for people."""
        routes = (f'routes "{name}"' for name in sorted(self.wanted_routes() - self.routes.keys()))
        endpoints = (f'endpoints "{name}"' for name in sorted(self.wanted_endpoints() - self.endpoints.keys()))
        return (*routes, *endpoints)


_DECODERS: Final[Mapping[str, tuple[Callable[[], Any], Callable[[Any, str], Any]]]] = {
    LISTENER: (listener_pb2.Listener, decode_listener),
    CLUSTER: (cluster_pb2.Cluster, decode_cluster),
    ROUTE: (route_pb2.RouteConfiguration, decode_route_table),
    ENDPOINT: (endpoint_pb2.ClusterLoadAssignment, decode_assignment),
}


class Assembly:
    """The resources of one proxy, on their way to a snapshot."""

    def __init__(self) -> None:
        self.good = Resources()
        self.staged = Resources()
        self._known: dict[str, KnownRoutes] = {}
        """Of each route table, what it was decoded from last."""
        self._numbers = itertools.count(1)

    def put(self, type_url: str, name: str, packed: Any) -> None:
        """Decode and stage one resource (a google.protobuf.Any). Raises DecodeError; what was staged before stays."""
        make, decode = _DECODERS[type_url]
        full_name = type_url.rpartition("/")[2]
        path = f'{full_name.rpartition(".")[2]} "{name}"'
        _, message = unpack(packed, path, {full_name: make})
        own_name = message.cluster_name if type_url == ENDPOINT else message.name
        if own_name != name:
            raise DecodeError(path, f'is called "{own_name}" inside; both names must be equal')
        if type_url == ROUTE:
            self.staged.routes[name] = decode_route_table(message, path, self._known.setdefault(name, KnownRoutes()))
        else:
            self.staged.of_type(type_url)[name] = decode(message, path)

    def remove(self, type_url: str, name: str) -> None:
        """A resource is gone. Endpoints that are gone are an empty set: their cluster may still stand."""
        if type_url == ENDPOINT:
            self.staged.endpoints[name] = LoadAssignment()
        else:
            self.staged.of_type(type_url).pop(name, None)

    def forget_unwanted(self) -> None:
        """Drop routes and endpoints that nothing names any more."""
        for held, wanted in (
            (self.staged.routes, self.staged.wanted_routes()),
            (self.staged.endpoints, self.staged.wanted_endpoints()),
        ):
            for name in held.keys() - wanted:
                del held[name]
        self._known = {name: known for name, known in self._known.items() if name in self.staged.routes}

    def snapshot(self, *, despite_missing: bool = False) -> Snapshot | None:
        """The staged resources as a snapshot; None while something is missing.

        `despite_missing`: clusters without an answer about their endpoints have none, listeners without routes are left out.
        Raises DecodeError when a route leads to a cluster that can't be spoken to.
        """
        if self.staged.missing() and not despite_missing:
            return None
        return make_snapshot(self.staged, str(next(self._numbers)))

    def commit(self) -> None:
        """The staged resources work."""
        self.good = self.staged.copy()

    def roll_back(self) -> None:
        """The staged resources don't work."""
        self.staged = self.good.copy()


def make_snapshot(resources: Resources, version: str) -> Snapshot:
    """A snapshot of `resources`. Raises DecodeError."""
    listeners = tuple(one for one in resources.listeners.values() if not _lacks_routes(one, resources.routes))
    _check_protocols(resources, listeners)
    return Snapshot(
        version=version,
        listeners=listeners,
        route_tables=dict(resources.routes),
        clusters={
            name: found.with_endpoints(resources.endpoints.get(found.eds_name, NO_ENDPOINTS))
            if found.eds_name
            else found.cluster
            for name, found in resources.clusters.items()
        },
    )


def _lacks_routes(listener: Listener, routes: Mapping[str, RouteTable]) -> bool:
    filters = (chain.filter for chain in listener.chains)
    return any(
        isinstance(one, HttpFilter) and one.inline_routes is None and one.route_table not in routes for one in filters
    )


def _check_protocols(resources: Resources, listeners: tuple[Listener, ...]) -> None:
    unspeakable = {name for name, found in resources.clusters.items() if found.is_http2}
    if not unspeakable:
        return
    inline = [
        chain.filter.inline_routes
        for listener in listeners
        for chain in listener.chains
        if isinstance(chain.filter, HttpFilter) and chain.filter.inline_routes is not None
    ]
    for table in (*inline, *resources.routes.values()):
        for name in sorted(table.cluster_names() & unspeakable):
            problem = f'leads to cluster "{name}", which wants HTTP/2; only HTTP/1.1 upstreams are supported'
            raise DecodeError(f'route table "{table.name}"', problem)
