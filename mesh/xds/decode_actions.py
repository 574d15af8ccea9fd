"""What routes do: envoy.config.route.v3 RouteAction, RedirectAction and DirectResponseAction. Pure."""

from typing import Any, Final

from mesh.errors import MeshError
from mesh.resilience.hedge import HedgePolicy
from mesh.routing.hashing import HashPolicy, HashSource
from mesh.routing.mirror import Mirror
from mesh.routing.table import Action, DirectResponse, Forward, Redirect, RegexRewrite, WeightedCluster
from mesh.xds.decode_filters import decode_filter_settings
from mesh.xds.decode_headers import HEADER_FIELDS, mutation
from mesh.xds.decode_matches import regex
from mesh.xds.decode_retry import decode_retry_policy
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, share, wrapped

_STATUS_MAX: Final = 599
_MISSING_STATUS: Final = (503, 404, 500)  # in the order of ClusterNotFoundResponseCode
_SUBSET_KEY: Final = "envoy.lb"
_FORWARD_FIELDS: Final = (
    "cluster",
    "weighted_clusters",
    "metadata_match",
    "timeout",
    "idle_timeout",
    "retry_policy",
    "hedge_policy",
    "prefix_rewrite",
    "regex_rewrite",
    "host_rewrite_literal",
    "host_rewrite_header",
    "host_rewrite_path_regex",
    "append_x_forwarded_host",
    "cluster_not_found_response_code",
    "max_stream_duration",
    "hash_policy",
    "request_mirror_policies",
    "upgrade_configs",
)


def decode_action(route: Any, path: str, *, repeats_any: bool) -> Action:
    """The action of a Route. `repeats_any`: its owner says that every method may be sent twice. Raises DecodeError."""
    match route.WhichOneof("action"):
        case "route":
            return _forward(route.route, join(path, "route"), repeats_any=repeats_any)
        case "redirect":
            return _redirect(route.redirect, join(path, "redirect"))
        case "direct_response":
            return _direct_response(route.direct_response, join(path, "direct_response"))
        case _:
            raise DecodeError(path, "want one of route, redirect, direct_response")


def _forward(action: Any, path: str, *, repeats_any: bool) -> Forward:
    only(action, path, *_FORWARD_FIELDS)
    retry_path = join(path, "retry_policy")
    own_retry = action.HasField("retry_policy")
    timeout = seconds(action, "timeout")
    split = action.weighted_clusters
    try:
        return Forward(
            clusters=_clusters(action, path),
            timeout_s=15.0 if timeout is None else timeout or None,
            idle_timeout_s=seconds(action, "idle_timeout"),
            max_stream_duration_s=_stream_limit(action, path),
            retry=decode_retry_policy(action.retry_policy, retry_path, repeats_any=repeats_any) if own_retry else None,
            hedge=decode_hedge(action, path),
            prefix_rewrite=action.prefix_rewrite or None,
            regex_rewrite=_regex_rewrite(action, path),
            host_rewrite=action.host_rewrite_literal or None,
            host_rewrite_header=action.host_rewrite_header.lower() or None,
            host_rewrite_regex=_regex_rewrite(action, path, "host_rewrite_path_regex"),
            append_forwarded_host=action.append_x_forwarded_host,
            split_header=split.header_name.lower() or None,
            split_by_hash=wrapped(split, "use_hash_policy", False),
            hash_policies=_hash_policies(action, path),
            mirrors=decode_mirrors(action, path),
            upgrades=_upgrades(action, path),
            terminates_connect=any(one.HasField("connect_config") for one in action.upgrade_configs),
            missing_cluster_status=_MISSING_STATUS[action.cluster_not_found_response_code],
        )
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def decode_hedge(message: Any, path: str) -> HedgePolicy | None:
    """`hedge_policy` of a route or virtual host; None when it has none."""
    if not message.HasField("hedge_policy"):
        return None
    only(message.hedge_policy, join(path, "hedge_policy"), "hedge_on_per_try_timeout")
    return HedgePolicy(on_per_try_timeout=message.hedge_policy.hedge_on_per_try_timeout)


def _stream_limit(action: Any, path: str) -> float | None:
    """0 (as Istio sends it) is no limit. The grpc_timeout fields concern gRPC, which does not come this way."""
    limit = action.max_stream_duration
    path = join(path, "max_stream_duration")
    only(limit, path, "max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset")
    return seconds(limit, "max_stream_duration") or None


def _upgrades(action: Any, path: str) -> tuple[tuple[str, bool], ...]:
    found: list[tuple[str, bool]] = []
    for i, one in enumerate(action.upgrade_configs):
        where = f"{join(path, 'upgrade_configs')}[{i}]"
        only(one, where, "upgrade_type", "enabled", "connect_config")
        only(one.connect_config, join(where, "connect_config"))
        name = str(one.upgrade_type).lower()
        enabled = bool(wrapped(one, "enabled", True))
        if not name:
            raise DecodeError(join(where, "upgrade_type"), "is empty; want a protocol such as websocket, or CONNECT")
        found.append((name, enabled))
    return tuple(found)


def decode_mirrors(message: Any, path: str) -> tuple[Mirror, ...]:
    """`request_mirror_policies` of a route, virtual host or table."""
    found: list[Mirror] = []
    for i, one in enumerate(message.request_mirror_policies):
        where = f"{join(path, 'request_mirror_policies')}[{i}]"
        only(
            one,
            where,
            "cluster",
            "runtime_fraction",
            "trace_sampled",
            "disable_shadow_host_suffix_append",
            "host_rewrite_literal",
        )
        if not one.cluster:
            raise DecodeError(join(where, "cluster"), "is empty; name a cluster")
        fraction = one.runtime_fraction.default_value
        found.append(
            Mirror(
                cluster=one.cluster,
                share=share(fraction, join(where, "runtime_fraction")) if one.HasField("runtime_fraction") else 1.0,
                keeps_host=one.disable_shadow_host_suffix_append,
                host_rewrite=one.host_rewrite_literal or None,
            )
        )
    return tuple(found)


def _hash_policies(action: Any, path: str) -> tuple[HashPolicy, ...]:
    return tuple(_hash_policy(one, f"{join(path, 'hash_policy')}[{i}]") for i, one in enumerate(action.hash_policy))


def _hash_policy(policy: Any, path: str) -> HashPolicy:
    kind = policy.WhichOneof("policy_specifier")
    where = join(path, kind or "")
    terminal = bool(policy.terminal)
    match kind:
        case "header":
            only(policy.header, where, "header_name")
            found = HashPolicy(source=HashSource.HEADER, name=policy.header.header_name.lower(), terminal=terminal)
        case "cookie":
            only(policy.cookie, where, "name", "ttl", "path", "attributes")
            ttl = seconds(policy.cookie, "ttl")
            found = HashPolicy(
                source=HashSource.COOKIE,
                name=policy.cookie.name,
                ttl_s=None if ttl is None else int(ttl),
                path=policy.cookie.path,
                attributes=tuple((one.name, one.value) for one in policy.cookie.attributes),
                terminal=terminal,
            )
        case "query_parameter":
            found = HashPolicy(source=HashSource.QUERY, name=policy.query_parameter.name, terminal=terminal)
        case "connection_properties":
            if not policy.connection_properties.source_ip:
                raise DecodeError(join(where, "source_ip"), "want true: it is the only property there is")
            return HashPolicy(source=HashSource.SOURCE_IP, terminal=terminal)
        case _:
            raise DecodeError(path, "want one of header, cookie, connection_properties, query_parameter")
    if not found.name:
        raise DecodeError(where, "its name is empty")
    return found


def _clusters(action: Any, path: str) -> tuple[WeightedCluster, ...]:
    labels = _labels(action, path)
    match action.WhichOneof("cluster_specifier"):
        case "cluster":
            return (WeightedCluster(name=action.cluster, metadata_match=labels),)
        case "weighted_clusters":
            pass
        case _:
            raise DecodeError(path, "want one of cluster, weighted_clusters")
    path = join(path, "weighted_clusters")
    split = action.weighted_clusters
    only(split, path, "clusters", "total_weight", "runtime_key_prefix", "header_name", "use_hash_policy")
    branches = tuple(_branch(one, f"{join(path, 'clusters')}[{i}]", labels) for i, one in enumerate(split.clusters))
    found = sum(branch.weight for branch in branches)
    wanted = wrapped(split, "total_weight", found)
    if found != wanted:
        raise DecodeError(join(path, "total_weight"), f"is {wanted}, but the weights sum to {found}")
    return branches


def _branch(one: Any, path: str, labels: tuple[tuple[str, str], ...]) -> WeightedCluster:
    only(
        one,
        path,
        "name",
        "weight",
        "metadata_match",
        "typed_per_filter_config",
        "host_rewrite_literal",
        *HEADER_FIELDS,
    )
    if not one.name:
        raise DecodeError(join(path, "name"), "is empty; name a cluster")
    return WeightedCluster(
        name=one.name,
        weight=wrapped(one, "weight", 0),
        request_headers=mutation(one, path, "request"),
        response_headers=mutation(one, path, "response"),
        # The branch's labels are joined with the route's and win (Envoy, WeightedCluster.metadata_match).
        metadata_match=tuple(sorted({**dict(labels), **dict(_labels(one, path))}.items())),
        host_rewrite=one.host_rewrite_literal or None,
        filters=decode_filter_settings(one, path),
    )


def _labels(message: Any, path: str) -> tuple[tuple[str, str], ...]:
    """`metadata_match`. Other keys than "envoy.lb" choose nothing, as in Envoy."""
    if not message.HasField("metadata_match"):
        return ()
    path = join(path, f'metadata_match.filter_metadata["{_SUBSET_KEY}"]')
    if _SUBSET_KEY not in message.metadata_match.filter_metadata:
        return ()
    labels: list[tuple[str, str]] = []
    for name, value in message.metadata_match.filter_metadata[_SUBSET_KEY].fields.items():
        if value.WhichOneof("kind") != "string_value":
            raise DecodeError(f"{path}.{name}", "want a text: endpoints are chosen by labels")
        labels.append((name, value.string_value))
    return tuple(sorted(labels))


def _regex_rewrite(message: Any, path: str, field: str = "regex_rewrite") -> RegexRewrite | None:
    if not message.HasField(field):
        return None
    path = join(path, field)
    found = getattr(message, field)
    only(found, path, "pattern", "substitution")
    return RegexRewrite(pattern=regex(found.pattern, join(path, "pattern")), substitution=found.substitution)


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
        "regex_rewrite",
        "response_code",
        "strip_query",
    )
    return Redirect(
        scheme="https" if action.https_redirect else action.scheme_redirect.lower(),
        host=action.host_redirect,
        port=action.port_redirect,
        path=action.path_redirect,
        prefix_rewrite=action.prefix_rewrite,
        regex_rewrite=_regex_rewrite(action, path),
        status=_REDIRECT_STATUS[action.response_code],
        strip_query=action.strip_query,
    )


def _direct_response(action: Any, path: str) -> DirectResponse:
    only(action, path, "status", "body")
    if not 200 <= action.status <= _STATUS_MAX:
        raise DecodeError(join(path, "status"), f"is {action.status}, want 200 to {_STATUS_MAX}")
    only(action.body, join(path, "body"), "inline_string", "inline_bytes")
    body = action.body.inline_bytes or action.body.inline_string.encode()
    return DirectResponse(status=action.status, body=bytes(body))
