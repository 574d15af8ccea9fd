"""envoy.config.route.v3.RouteConfiguration -> RouteTable. Pure."""

from hashlib import blake2b
from typing import Any

from mesh.errors import MeshError
from mesh.routing.table import Provenance, Route, RouteTable, VirtualHost
from mesh.xds.decode_actions import decode_action, decode_hedge, decode_mirrors
from mesh.xds.decode_filters import decode_filter_settings
from mesh.xds.decode_headers import HEADER_FIELDS, mutation
from mesh.xds.decode_matches import decode_route_match
from mesh.xds.decode_retry import BUFFER_FIELDS, buffer_limit, decode_retry_policy
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, metadata, only


class KnownRoutes:
    """What one table was decoded from last time, by the digest of its bytes. The same bytes give the same objects again.

    So a table of 10,000 routes of which one has changed costs 0.1 s instead of 1.4, and what is compiled from equal objects can be kept.
    """

    __slots__ = ("hosts", "routes")

    def __init__(self) -> None:
        self.hosts: dict[bytes, VirtualHost] = {}
        self.routes: dict[bytes, Route] = {}


def decode_route_table(config: Any, path: str, known: KnownRoutes | None = None) -> RouteTable:
    """One RouteConfiguration. `path` names it in errors. Raises DecodeError.

    `known` is what the table held so far; when this succeeds it is what the table holds now.
    """
    known = known if known is not None else KnownRoutes()
    fresh = KnownRoutes()
    only(
        config,
        path,
        "name",
        "virtual_hosts",
        *HEADER_FIELDS,
        "ignore_port_in_host_matching",
        "validate_clusters",
        "max_direct_response_body_size_bytes",
        "most_specific_header_mutations_wins",
        "request_mirror_policies",
        "typed_per_filter_config",
        "metadata",
    )
    hosts: list[VirtualHost] = []
    for i, host in enumerate(config.virtual_hosts):
        digest = _digest(host)
        found = known.hosts.get(digest)
        if found is None:
            found = _virtual_host(host, f"{join(path, 'virtual_hosts')}[{i}]", known, fresh)
        else:
            _keep_routes(host, found, fresh)
        fresh.hosts[digest] = found
        hosts.append(found)
    try:
        table = RouteTable(
            name=config.name,
            virtual_hosts=tuple(hosts),
            request_headers=mutation(config, path, "request"),
            response_headers=mutation(config, path, "response"),
            filters=decode_filter_settings(config, path),
            mirrors=decode_mirrors(config, path),
            most_specific_wins=config.most_specific_header_mutations_wins,
            ignore_port_in_host=config.ignore_port_in_host_matching,
        )
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc
    known.hosts, known.routes = fresh.hosts, fresh.routes
    return table


def _digest(message: Any) -> bytes:
    return blake2b(message.SerializeToString(deterministic=True), digest_size=16).digest()


def _keep_routes(host: Any, decoded: VirtualHost, fresh: KnownRoutes) -> None:
    for message, route in zip(host.routes, decoded.routes, strict=True):
        fresh.routes[_digest(message)] = route


def decode_provenance(message: Any) -> Provenance | None:
    """Which object made it, from the metadata; None when it does not say."""
    return _provenance(metadata(message))


def _provenance(found: dict[str, Any]) -> Provenance | None:
    if "kind" not in found:
        return None
    text = {name: str(found.get(name) or "") for name in ("kind", "namespace", "name", "field", "file")}
    return Provenance(**text, line=int(found.get("line") or 0))


def _virtual_host(host: Any, path: str, known: KnownRoutes, fresh: KnownRoutes) -> VirtualHost:
    only(
        host,
        path,
        "name",
        "domains",
        "routes",
        "retry_policy",
        "hedge_policy",
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        *BUFFER_FIELDS,
        "request_mirror_policies",
        "typed_per_filter_config",
        *HEADER_FIELDS,
        "metadata",
    )
    if not host.domains:
        raise DecodeError(join(path, "domains"), "is empty; name at least one host, or `*`")
    routes: list[Route] = []
    for i, message in enumerate(host.routes):
        digest = _digest(message)
        route = known.routes.get(digest)
        if route is None:
            route = _route(message, f"{join(path, 'routes')}[{i}]")
        fresh.routes[digest] = route
        routes.append(route)
    own_retry = host.HasField("retry_policy")
    return VirtualHost(
        name=host.name,
        domains=tuple(host.domains),
        routes=tuple(routes),
        retry=decode_retry_policy(host.retry_policy, join(path, "retry_policy")) if own_retry else None,
        hedge=decode_hedge(host, path),
        mirrors=decode_mirrors(host, path),
        include_attempt_count=host.include_request_attempt_count,
        include_attempt_count_in_response=host.include_attempt_count_in_response,
        buffer_limit_bytes=buffer_limit(host),
        request_headers=mutation(host, path, "request"),
        response_headers=mutation(host, path, "response"),
        filters=decode_filter_settings(host, path),
        provenance=decode_provenance(host),
    )


def _route(route: Any, path: str) -> Route:
    only(
        route,
        path,
        "name",
        "match",
        "route",
        "redirect",
        "direct_response",
        "metadata",
        "decorator",
        "stat_prefix",
        *BUFFER_FIELDS,
        "typed_per_filter_config",
        *HEADER_FIELDS,
    )
    cause = metadata(route)
    return Route(
        name=route.name,
        match=decode_route_match(route.match, join(path, "match")),
        action=decode_action(route, path, repeats_any=cause.get("replay") == "any"),
        buffer_limit_bytes=buffer_limit(route),
        request_headers=mutation(route, path, "request"),
        response_headers=mutation(route, path, "response"),
        filters=decode_filter_settings(route, path),
        provenance=_provenance(cause),
    )
