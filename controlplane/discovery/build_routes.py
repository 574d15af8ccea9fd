"""Services and compiled VirtualServices -> virtual hosts and route configurations. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2

from controlplane.discovery.build_actions import (
    Target,
    Targets,
    forward_action,
    hash_policy,
    mutate,
    redirect_action,
    retry_policy,
)
from controlplane.discovery.build_clusters import PASSTHROUGH, outbound_name
from controlplane.discovery.build_filters import add_route_filters
from controlplane.discovery.build_matches import route_match
from controlplane.discovery.facts import Labels, ServiceFacts
from controlplane.discovery.messages import duration
from controlplane.discovery.metadata import provenance_metadata
from controlplane.discovery.resources import RDS, Resource, length_delimited, resource_of_bytes
from mesh.routing.table import DirectResponse
from policies.hosts import service_aliases
from policies.values import (
    DEFAULT_RETRY,
    CompiledRoute,
    CompiledVirtualService,
    Destination,
    Forward,
    Match,
    RedirectTo,
)

PROXY_ROUTES = "http_proxy"
"""The route configuration of a proxy without interception: every service, by Host."""
_VIRTUAL_HOSTS_FIELD = 2


@dataclass(frozen=True, slots=True)
class BuiltHost:
    """One virtual host, serialised."""

    domains: tuple[str, ...]
    frame: bytes
    """Field `virtual_hosts` of a RouteConfiguration."""
    clusters: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks: decides which matches of a VirtualService apply."""

    namespace: str
    labels: Labels
    """Only those that some policy asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRequest:
    """What one virtual host is built from; equal requests give equal hosts."""

    host: str
    """A service's full name, or what a VirtualService calls it."""
    port: int
    domains: tuple[str, ...]
    service: ServiceFacts | None
    policy: CompiledVirtualService | None
    client: Client
    destinations: tuple[Target, ...]
    """Of every destination of `policy`; without one, of the service itself if it is balanced by a key."""

    @property
    def targets(self) -> Targets:
        """Where routes lead."""
        return Targets(self.port, self.destinations)


def domains_of(
    service: ServiceFacts, port: int, client_namespace: str, domain: str, *, is_default: bool = True
) -> tuple[str, ...]:
    """Every Host by which clients of a namespace may mean this port of the service.

    Names without a port count only where the port is the one the client addressed (`is_default`).
    """
    is_own = service.namespace == client_namespace
    return _domains(service.name, service.namespace, service.cluster_ip, port, domain, is_own, is_default)


@lru_cache(maxsize=1 << 15)
def _domains(
    name: str, namespace: str, cluster_ip: str, port: int, domain: str, is_own: bool, is_default: bool
) -> tuple[str, ...]:
    names = list(service_aliases(name, namespace, domain))
    if not is_own:
        del names[0]  # the bare name means the client's own namespace
    if cluster_ip:
        names.append(cluster_ip)
    with_port = [f"{alias}:{port}" for alias in names]
    return tuple([*names, *with_port] if is_default else with_port)


def build_host(request: HostRequest) -> BuiltHost:
    """The virtual host with its routes."""
    clusters: set[str] = set()
    host = route_components_pb2.VirtualHost(
        name=f"{request.host}:{request.port}",
        domains=request.domains,
        include_request_attempt_count=True,
        routes=_routes(request, clusters),
    )
    frame = length_delimited(_VIRTUAL_HOSTS_FIELD, host.SerializeToString(deterministic=True))
    return BuiltHost(request.domains, frame, frozenset(clusters))


def _routes(request: HostRequest, clusters: set[str]) -> list[Any]:
    if request.policy is None:
        return [_default_route(request, clusters)] if request.service is not None else []
    return [
        _route(request, route, match, clusters)
        for route in request.policy.routes
        for match in route.matches
        if _applies(match, request)
    ]


def _applies(match: Match, request: HostRequest) -> bool:
    labels = dict(request.client.labels)
    return (
        match.port in (0, request.port)
        and match.source_namespace in ("", request.client.namespace)
        and all(labels.get(key) == value for key, value in match.source_labels)
    )


def _default_route(request: HostRequest, clusters: set[str]) -> Any:
    service = request.service
    assert service is not None  # the caller's case
    name = outbound_name(service.host, request.port)
    clusters.add(name)
    action = route_components_pb2.RouteAction(
        cluster=name, timeout=duration(0), retry_policy=retry_policy(DEFAULT_RETRY)
    )
    key = request.targets.hash_key(Destination(host=service.host, port=request.port))
    if key is not None:
        action.hash_policy.append(hash_policy(key))
    return route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=action,
        metadata=provenance_metadata(service.provenance),
    )


def _route(request: HostRequest, compiled: CompiledRoute, match: Match, clusters: set[str]) -> Any:
    extra = {"replay": "any"} if compiled.repeats_any else {}
    route = route_components_pb2.Route(
        name=".".join(name for name in (compiled.name, match.name) if name),
        match=route_match(match.request),
        metadata=provenance_metadata(compiled.provenance, **extra),
        stat_prefix=match.stat_prefix,
    )
    mutate(route, compiled.request_headers, compiled.response_headers)
    add_route_filters(route, compiled)
    match compiled.action:
        case Forward() as action:
            built, named = forward_action(action, match, request.targets)
            route.route.CopyFrom(built)
            clusters.update(named)
        case RedirectTo() as redirect:
            route.redirect.CopyFrom(redirect_action(redirect, request.port))
        case DirectResponse() as response:
            route.direct_response.status = response.status
            if response.body:
                route.direct_response.body.inline_bytes = response.body
    return route


def route_configuration(name: str, hosts: Iterable[BuiltHost], *, passes_unknown: bool) -> Resource:
    """Join finished virtual hosts, and the last one for every other Host: pass through, or (without interception) 502.

    No domain may be in two hosts: Envoy refuses the whole configuration otherwise.
    """
    clusters: set[str] = set()
    frames: list[bytes] = []
    for host in hosts:
        frames.append(host.frame)
        clusters |= host.clusters
    frames.append(_unknown_host(passes=passes_unknown))
    if passes_unknown:
        clusters.add(PASSTHROUGH)
    body = route_pb2.RouteConfiguration(name=name).SerializeToString() + b"".join(frames)
    return resource_of_bytes(RDS, name, body, clusters)


def _unknown_host(*, passes: bool) -> bytes:
    route = route_components_pb2.Route(match=route_components_pb2.RouteMatch(prefix="/"))
    if passes:
        route.name = "allow_any"
        route.route.cluster = PASSTHROUGH
        route.route.timeout.CopyFrom(duration(0))
    else:
        route.name = "block_all"
        route.direct_response.status = 502
        route.direct_response.body.inline_string = "no service of the mesh has this Host\n"
    host = route_components_pb2.VirtualHost(name=route.name, domains=["*"], routes=[route])
    return length_delimited(_VIRTUAL_HOSTS_FIELD, host.SerializeToString(deterministic=True))
