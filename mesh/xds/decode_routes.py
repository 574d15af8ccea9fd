"""envoy.config.route.v3.RouteConfiguration -> RouteTable. Pure."""

import re
from collections.abc import Iterable
from typing import Any, Final

from mesh.errors import MeshError
from mesh.routing.table import (
    Action,
    DirectResponse,
    Forward,
    HeaderMutation,
    HeaderValue,
    Provenance,
    Redirect,
    RegexRewrite,
    Route,
    RouteTable,
    VirtualHost,
    WeightedCluster,
)
from mesh.xds.decode_matches import decode_route_match, regex
from mesh.xds.decode_retry import BUFFER_FIELDS, buffer_limit, decode_retry_policy
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, metadata, only, seconds, wrapped

HEADER_FIELDS: Final = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)
_HTTP_OK_MAX: Final = 599


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
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        *BUFFER_FIELDS,
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
        include_attempt_count=host.include_request_attempt_count,
        include_attempt_count_in_response=host.include_attempt_count_in_response,
        buffer_limit_bytes=buffer_limit(host),
        request_headers=mutation(host, path, "request"),
        response_headers=mutation(host, path, "response"),
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
        *HEADER_FIELDS,
    )
    return Route(
        name=route.name,
        match=decode_route_match(route.match, join(path, "match")),
        action=_action(route, path),
        buffer_limit_bytes=buffer_limit(route),
        request_headers=mutation(route, path, "request"),
        response_headers=mutation(route, path, "response"),
        provenance=decode_provenance(route),
    )


def _action(route: Any, path: str) -> Action:
    match route.WhichOneof("action"):
        case "route":
            repeats_any = metadata(route).get("replay") == "any"
            return _forward(route.route, join(path, "route"), repeats_any=repeats_any)
        case "redirect":
            return _redirect(route.redirect, join(path, "redirect"))
        case "direct_response":
            return _direct_response(route.direct_response, join(path, "direct_response"))
        case _:
            raise DecodeError(path, "want one of route, redirect, direct_response")


def _forward(action: Any, path: str, *, repeats_any: bool) -> Forward:
    only(
        action,
        path,
        "cluster",
        "weighted_clusters",
        "timeout",
        "idle_timeout",
        "retry_policy",
        "prefix_rewrite",
        "regex_rewrite",
        "host_rewrite_literal",
        "cluster_not_found_response_code",
        "max_stream_duration",
    )
    _no_stream_limit(action, path)
    retry_path = join(path, "retry_policy")
    own_retry = action.HasField("retry_policy")
    timeout = seconds(action, "timeout")
    try:
        return Forward(
            clusters=_clusters(action, path),
            timeout_s=15.0 if timeout is None else timeout or None,
            idle_timeout_s=seconds(action, "idle_timeout"),
            retry=decode_retry_policy(action.retry_policy, retry_path, repeats_any=repeats_any) if own_retry else None,
            prefix_rewrite=action.prefix_rewrite or None,
            regex_rewrite=_regex_rewrite(action, path),
            host_rewrite=action.host_rewrite_literal or None,
        )
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def _no_stream_limit(action: Any, path: str) -> None:
    """0 (no limit, as Istio sends it) is what we do anyway."""
    limit = action.max_stream_duration
    path = join(path, "max_stream_duration")
    only(limit, path, "max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")
    if seconds(limit, "max_stream_duration"):
        raise DecodeError(join(path, "max_stream_duration"), "only 0 (no limit) is supported; use timeout")


def _clusters(action: Any, path: str) -> tuple[WeightedCluster, ...]:
    match action.WhichOneof("cluster_specifier"):
        case "cluster":
            return (WeightedCluster(name=action.cluster),)
        case "weighted_clusters":
            pass
        case _:
            raise DecodeError(path, "want one of cluster, weighted_clusters")
    path = join(path, "weighted_clusters")
    split = action.weighted_clusters
    only(split, path, "clusters", "total_weight", "runtime_key_prefix")
    branches = tuple(_branch(one, f"{join(path, 'clusters')}[{i}]") for i, one in enumerate(split.clusters))
    found = sum(branch.weight for branch in branches)
    wanted = wrapped(split, "total_weight", found)
    if found != wanted:
        raise DecodeError(join(path, "total_weight"), f"is {wanted}, but the weights sum to {found}")
    return branches


def _branch(one: Any, path: str) -> WeightedCluster:
    only(one, path, "name", "weight", *HEADER_FIELDS)
    if not one.name:
        raise DecodeError(join(path, "name"), "is empty; name a cluster")
    return WeightedCluster(
        name=one.name,
        weight=wrapped(one, "weight", 0),
        request_headers=mutation(one, path, "request"),
        response_headers=mutation(one, path, "response"),
    )


def _regex_rewrite(action: Any, path: str) -> RegexRewrite | None:
    if not action.HasField("regex_rewrite"):
        return None
    path = join(path, "regex_rewrite")
    only(action.regex_rewrite, path, "pattern", "substitution")
    pattern = regex(action.regex_rewrite.pattern, join(path, "pattern"))
    return RegexRewrite(pattern=pattern, substitution=action.regex_rewrite.substitution)


_REDIRECT_STATUS: Final = (301, 302, 303, 307, 308)  # in the order of RedirectResponseCode


def _redirect(action: Any, path: str) -> Redirect:
    only(
        action,
        path,
        "https_redirect",
        "scheme_redirect",
        "host_redirect",
        "port_redirect",
        "path_redirect",
        "prefix_rewrite",
        "response_code",
        "strip_query",
    )
    return Redirect(
        scheme="https" if action.https_redirect else action.scheme_redirect,
        host=action.host_redirect,
        port=action.port_redirect,
        path=action.path_redirect,
        prefix_rewrite=action.prefix_rewrite,
        status=_REDIRECT_STATUS[action.response_code],
        strip_query=action.strip_query,
    )


def _direct_response(action: Any, path: str) -> DirectResponse:
    only(action, path, "status", "body")
    if not 200 <= action.status <= _HTTP_OK_MAX:
        raise DecodeError(join(path, "status"), f"is {action.status}, want 200 to {_HTTP_OK_MAX}")
    only(action.body, join(path, "body"), "inline_string", "inline_bytes")
    body = action.body.inline_bytes or action.body.inline_string.encode()
    return DirectResponse(status=action.status, body=bytes(body))


_FORMAT: Final = re.compile(r"%(?!%)[^%]*%|%%")


def mutation(message: Any, path: str, which: str) -> HeaderMutation:
    """`request_headers_to_add` and `..._to_remove` (`which` "request"), or those of the response."""
    add, remove = f"{which}_headers_to_add", f"{which}_headers_to_remove"
    options: Iterable[Any] = getattr(message, add)
    return HeaderMutation(
        add=tuple(_header_value(option, f"{join(path, add)}[{i}]") for i, option in enumerate(options)),
        remove=tuple(str(name).lower() for name in getattr(message, remove)),
    )


def _header_value(option: Any, path: str) -> HeaderValue:
    only(option, path, "header", "append", "append_action", "keep_empty_value")
    header = option.header
    only(header, join(path, "header"), "key", "value", "raw_value")
    text = header.value or header.raw_value.decode("latin-1")
    name = str(header.key).lower()
    if not name or name.startswith(":") or name == "host":
        raise DecodeError(
            join(path, "header.key"), f'"{header.key}" can\'t be set; use host_rewrite_literal for the host'
        )
    if "\r" in text or "\n" in text or "\0" in text:
        raise DecodeError(join(path, "header.value"), "holds a line break or a NUL")
    return HeaderValue(name=name, value=_literal(text, path), append=_appends(option, path))


def _literal(text: str, path: str) -> str:
    if any(found != "%%" for found in _FORMAT.findall(text)):
        raise DecodeError(
            join(path, "header.value"), f"{text!r}: %VARIABLES% are not supported; write %% for a percent sign"
        )
    return text.replace("%%", "%")


def _appends(option: Any, path: str) -> bool:
    match option.append_action:
        case 0:
            return bool(wrapped(option, "append", True))
        case 2:
            return False
        case _:
            problem = "only APPEND_IF_EXISTS_OR_ADD and OVERWRITE_IF_EXISTS_OR_ADD are supported"
            raise DecodeError(join(path, "append_action"), problem)
