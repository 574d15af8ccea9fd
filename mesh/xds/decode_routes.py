"""envoy.config.route.v3.RouteConfiguration -> RouteTable. Pure."""

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


def decode_route_table(config: Any, path: str) -> RouteTable:
    """One RouteConfiguration. `path` names it in errors. Raises DecodeError."""
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
    hosts = tuple(
        _virtual_host(host, f"{join(path, 'virtual_hosts')}[{i}]") for i, host in enumerate(config.virtual_hosts)
    )
    try:
        return RouteTable(
            name=config.name,
            virtual_hosts=hosts,
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


def decode_provenance(message: Any) -> Provenance | None:
    """Which object made it, from the metadata; None when it does not say."""
    found = metadata(message)
    if "kind" not in found:
        return None
    text = {name: str(found.get(name) or "") for name in ("kind", "namespace", "name", "field", "file")}
    return Provenance(**text, line=int(found.get("line") or 0))


def _virtual_host(host: Any, path: str) -> VirtualHost:
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
    own_retry = host.HasField("retry_policy")
    return VirtualHost(
        name=host.name,
        domains=tuple(host.domains),
        routes=tuple(_route(route, f"{join(path, 'routes')}[{i}]") for i, route in enumerate(host.routes)),
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
    return Route(
        name=route.name,
        match=decode_route_match(route.match, join(path, "match")),
        action=decode_action(route, path),
        buffer_limit_bytes=buffer_limit(route),
        request_headers=mutation(route, path, "request"),
        response_headers=mutation(route, path, "response"),
        filters=decode_filter_settings(route, path),
        provenance=decode_provenance(route),
    )
