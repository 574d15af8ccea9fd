"""Services and compiled VirtualServices -> virtual hosts and route configurations. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2

from controlplane.discovery.build_clusters import BLACK_HOLE, PASSTHROUGH, duration, outbound_name, uint32
from controlplane.discovery.build_matches import route_match
from controlplane.discovery.facts import Labels, ServiceFacts
from controlplane.discovery.metadata import provenance_metadata
from controlplane.discovery.resources import RDS, Resource, length_delimited, resource_of_bytes
from mesh.routing.table import DirectResponse, HeaderMutation, PathKind, Redirect
from policies.hosts import service_aliases
from policies.values import DEFAULT_RETRY, CompiledRoute, CompiledVirtualService, Destination, Forward, Match, Retry

PROXY_ROUTES = "http_proxy"
"""The route configuration of a proxy without interception: every service, by Host."""
_VIRTUAL_HOSTS_FIELD = 2
_REDIRECT_CODES = {301: 0, 302: 1, 303: 2, 307: 3, 308: 4}


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
    destinations: tuple[tuple[str, str, ServiceFacts | None, bool], ...]
    """(host, subset, its service, whether the subset exists) of every destination of `policy`, in order."""


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
    return route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            cluster=name, timeout=duration(0), retry_policy=_retry_policy(DEFAULT_RETRY)
        ),
        metadata=provenance_metadata(service.provenance),
    )


def _route(request: HostRequest, compiled: CompiledRoute, match: Match, clusters: set[str]) -> Any:
    route = route_components_pb2.Route(
        name=compiled.name, match=route_match(match.request), metadata=provenance_metadata(compiled.provenance)
    )
    _mutate(route, compiled.request_headers, compiled.response_headers)
    match compiled.action:
        case Forward() as action:
            route.route.CopyFrom(_forward(request, action, match, clusters))
        case Redirect() as redirect:
            route.redirect.CopyFrom(_redirect(redirect))
        case DirectResponse() as response:
            route.direct_response.status = response.status
            if response.body:
                route.direct_response.body.inline_bytes = response.body
    return route


def _forward(request: HostRequest, action: Forward, match: Match, clusters: set[str]) -> Any:
    built = route_components_pb2.RouteAction(timeout=duration(action.timeout_s or 0))
    branches = [(destination, _cluster_of(request, destination)) for destination in action.destinations]
    clusters.update(name for _, name in branches)
    first, name = branches[0]
    if len(branches) == 1 and not (first.request_headers or first.response_headers):
        built.cluster = name
    else:
        for destination, name in branches:
            built.weighted_clusters.clusters.append(_branch(destination, name))
    if action.retry.attempts:
        built.retry_policy.CopyFrom(_retry_policy(action.retry))
    if action.host_rewrite:
        built.host_rewrite_literal = action.host_rewrite
    if action.prefix_rewrite:
        _rewrite_path(built, action.prefix_rewrite, match)
    return built


def _rewrite_path(action: Any, replacement: str, match: Match) -> None:
    """Envoy's prefix_rewrite replaces what matched: a prefix, or the whole exact path."""
    path = match.request.path
    if path.kind is PathKind.PREFIX and path.value == "/" and replacement != "/":
        replacement = replacement.rstrip("/") + "/"  # "/a" -> "/v2/a", not "/v2a"
    action.prefix_rewrite = replacement


def _branch(destination: Destination, name: str) -> Any:
    branch = route_components_pb2.WeightedCluster.ClusterWeight(name=name, weight=uint32(destination.weight))
    _mutate(branch, destination.request_headers, destination.response_headers)
    return branch


def _cluster_of(request: HostRequest, destination: Destination) -> str:
    """The destination's cluster, or the black hole when it does not exist (any more): 503, and the rest goes on."""
    for host, subset, service, exists in request.destinations:
        if (host, subset) == (destination.host, destination.subset):
            port = _port_of(service, destination.port, request.port) if service and exists else 0
            return outbound_name(host, port, subset) if port else BLACK_HOLE
    return BLACK_HOLE


def _port_of(service: ServiceFacts, wanted: int, asked: int) -> int:
    """The named port, else the service's only one, else the one the client addressed; 0 when there is no such port."""
    if wanted:
        return wanted if service.port(wanted) else 0
    if len(service.ports) == 1:
        return service.ports[0].number
    return asked if service.port(asked) else 0


def _retry_policy(retry: Retry) -> Any:
    conditions = list(retry.retry_on)
    if retry.statuses and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    policy = route_components_pb2.RetryPolicy(
        retry_on=",".join(conditions),
        num_retries=uint32(retry.attempts),
        retriable_status_codes=retry.statuses,
        host_selection_retry_max_attempts=5,
    )
    predicate = policy.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
    predicate.typed_config.Pack(previous_hosts_pb2.PreviousHostsPredicate())
    if retry.per_try_timeout_s:
        policy.per_try_timeout.CopyFrom(duration(retry.per_try_timeout_s))
    return policy


def _redirect(redirect: Redirect) -> Any:
    return route_components_pb2.RedirectAction(
        scheme_redirect=redirect.scheme,
        host_redirect=redirect.host,
        port_redirect=redirect.port,
        path_redirect=redirect.path,
        response_code=_REDIRECT_CODES[redirect.status],
    )


def _mutate(message: Any, request: HeaderMutation, response: HeaderMutation) -> None:
    for kind, mutation in (("request", request), ("response", response)):
        for header in mutation.add:
            getattr(message, f"{kind}_headers_to_add").add(
                header=base_pb2.HeaderValue(key=header.name, value=header.value),
                append_action=base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
                if header.append
                else base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
        getattr(message, f"{kind}_headers_to_remove").extend(mutation.remove)


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
