"""Settings of HTTP filters, of a listener or per route (typed_per_filter_config). Pure.

The messages' modules are imported when a configuration has one: most have none, and each costs memory.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

from mesh.errors import MeshError
from mesh.resilience.fault import FaultPolicy
from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.routing.cors import CorsPolicy
from mesh.routing.fault import FaultRule
from mesh.routing.filters import NO_SETTINGS, FilterKind, FilterSettings
from mesh.routing.headers import HeaderMutation
from mesh.routing.rate_limit import LocalRateLimit
from mesh.routing.session import SessionPolicy
from mesh.xds.decode_headers import added_headers
from mesh.xds.decode_matches import decode_headers_match, decode_string_match
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, share, unpack, wrapped

CORS: Final = "envoy.extensions.filters.http.cors.v3.CorsPolicy"
FAULT: Final = "envoy.extensions.filters.http.fault.v3.HTTPFault"
RATE_LIMIT: Final = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
SESSION: Final = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
_SESSION_PER_ROUTE: Final = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
_FILTER_CONFIG: Final = "envoy.config.route.v3.FilterConfig"
_COOKIE_STATE: Final = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
_HEADER_STATE: Final = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"

MODULES: Final = {
    CORS: "envoy.extensions.filters.http.cors.v3.cors_pb2",
    FAULT: "envoy.extensions.filters.http.fault.v3.fault_pb2",
    RATE_LIMIT: "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2",
    SESSION: "envoy.extensions.filters.http.stateful_session.v3.stateful_session_pb2",
    _SESSION_PER_ROUTE: "envoy.extensions.filters.http.stateful_session.v3.stateful_session_pb2",
    _FILTER_CONFIG: "envoy.config.route.v3.route_components_pb2",
    _COOKIE_STATE: "envoy.extensions.http.stateful_session.cookie.v3.cookie_pb2",
    _HEADER_STATE: "envoy.extensions.http.stateful_session.header.v3.header_pb2",
}
"""Full name of a message -> the module that has it."""


def lazily(*full_names: str) -> dict[str, Callable[[], Any]]:
    """For `unpack`: messages whose modules are imported when they occur."""

    def maker(full_name: str) -> Callable[[], Any]:
        return lambda: getattr(import_module(MODULES[full_name]), full_name.rpartition(".")[2])()

    return {full_name: maker(full_name) for full_name in full_names}


def decode_filter_settings(message: Any, path: str) -> FilterSettings:
    """`typed_per_filter_config` of a table, virtual host, route or branch. Raises DecodeError.

    DEVIATION: Envoy finds the filter by the key, which is the filter's name in the listener; here the message's type says it.
    """
    if not message.typed_per_filter_config:
        return NO_SETTINGS
    settings = NO_SETTINGS
    for name in sorted(message.typed_per_filter_config):
        where = f'{join(path, "typed_per_filter_config")}["{name}"]'
        settings = _add(settings, name, message.typed_per_filter_config[name], where)
    return settings


def _add(settings: FilterSettings, name: str, config: Any, path: str) -> FilterSettings:
    if config.type_url.rpartition("/")[2] == _FILTER_CONFIG:
        _, outer = unpack(config, path, lazily(_FILTER_CONFIG))
        only(outer, path, "config", "is_optional", "disabled")
        if outer.disabled:
            return _disable(settings, _kind_by_name(name, path))
        known = outer.config.type_url.rpartition("/")[2] in MODULES
        if (outer.is_optional and not known) or not outer.config.type_url:
            return settings
        return _add(settings, name, outer.config, join(path, "config"))
    full_name, found = unpack(config, path, lazily(CORS, FAULT, RATE_LIMIT, SESSION, _SESSION_PER_ROUTE))
    if full_name == _SESSION_PER_ROUTE:
        only(found, path, "disabled", "stateful_session")
        if found.disabled:
            return _disable(settings, FilterKind.STATEFUL_SESSION)
        return replace(settings, session=decode_session(found.stateful_session, join(path, "stateful_session")))
    return with_settings(settings, full_name, found, path)


def with_settings(settings: FilterSettings, full_name: str, message: Any, path: str) -> FilterSettings:
    """`settings` with one filter's added. Raises DecodeError."""
    try:
        match full_name:
            case "envoy.extensions.filters.http.cors.v3.CorsPolicy":
                return replace(settings, cors=_cors(message, path))
            case "envoy.extensions.filters.http.fault.v3.HTTPFault":
                return replace(settings, fault=_fault(message, path))
            case "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit":
                return replace(settings, rate_limit=_rate_limit(message, path))
            case _:
                return replace(settings, session=decode_session(message, path))
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def _disable(settings: FilterSettings, kind: FilterKind) -> FilterSettings:
    return replace(settings, disabled=settings.disabled | {kind})


def _kind_by_name(name: str, path: str) -> FilterKind:
    try:
        return FilterKind(name.removeprefix("envoy.filters.http."))
    except ValueError as exc:
        known = ", ".join(f"envoy.filters.http.{kind.value}" for kind in FilterKind)
        raise DecodeError(path, f"a filter can be disabled by its usual name only: {known}") from exc


def _fraction(message: Any, name: str, path: str, default: float) -> float:
    """A RuntimeFractionalPercent. Runtime keys have no layer here: the default value is the value."""
    if not message.HasField(name):
        return default
    return share(getattr(message, name).default_value, join(path, name))


def _cors(policy: Any, path: str) -> CorsPolicy:
    only(
        policy,
        path,
        "allow_origin_string_match",
        "allow_methods",
        "allow_headers",
        "expose_headers",
        "max_age",
        "allow_credentials",
        "filter_enabled",
        "allow_private_network_access",
        "forward_not_matching_preflights",
    )
    for field in ("allow_methods", "allow_headers", "expose_headers", "max_age"):
        if any(c in getattr(policy, field) for c in "\r\n\0"):
            raise DecodeError(join(path, field), "holds a line break or a NUL")
    origins = join(path, "allow_origin_string_match")
    return CorsPolicy(
        allow_origins=tuple(
            decode_string_match(one, f"{origins}[{i}]") for i, one in enumerate(policy.allow_origin_string_match)
        ),
        allow_methods=policy.allow_methods,
        allow_headers=policy.allow_headers,
        expose_headers=policy.expose_headers,
        max_age=policy.max_age,
        allow_credentials=wrapped(policy, "allow_credentials", None),
        allow_private_network=wrapped(policy, "allow_private_network_access", None),
        forwards_unmatched_preflights=wrapped(policy, "forward_not_matching_preflights", None),
        share=_fraction(policy, "filter_enabled", path, 1.0),
    )


def _fault(fault: Any, path: str) -> FaultRule:
    only(
        fault,
        path,
        "delay",
        "abort",
        "upstream_cluster",
        "headers",
        "max_active_faults",
        "disable_downstream_cluster_stats",
    )
    delay, abort = fault.delay, fault.abort
    delay_path, abort_path = join(path, "delay"), join(path, "abort")
    only(delay, delay_path, "fixed_delay", "percentage")
    only(abort, abort_path, "http_status", "percentage")
    policy = FaultPolicy(
        delay_s=seconds(delay, "fixed_delay") or 0.0,
        delay_percent=100.0 * share(delay.percentage, join(delay_path, "percentage")),
        abort_status=abort.http_status or 503,
        abort_percent=100.0 * share(abort.percentage, join(abort_path, "percentage")) if abort.http_status else 0.0,
        max_active=wrapped(fault, "max_active_faults", None),
    )
    headers = decode_headers_match(fault, path)
    return FaultRule(policy=policy, headers=headers, upstream_cluster=fault.upstream_cluster)


_STATUS_MIN: Final = 400


def _rate_limit(limit: Any, path: str) -> LocalRateLimit:
    only(
        limit,
        path,
        "stat_prefix",
        "status",
        "token_bucket",
        "filter_enabled",
        "filter_enforced",
        "response_headers_to_add",
        "enable_x_ratelimit_headers",
    )
    bucket, where = limit.token_bucket, join(path, "token_bucket")
    only(bucket, where, "max_tokens", "tokens_per_fill", "fill_interval")
    made: TokenBucketConfig | None = None
    if limit.HasField("token_bucket"):
        made = TokenBucketConfig(
            max_tokens=bucket.max_tokens,
            tokens_per_fill=wrapped(bucket, "tokens_per_fill", 1),
            fill_interval_s=seconds(bucket, "fill_interval") or 0.0,
        )
    status = int(limit.status.code)
    return LocalRateLimit(
        stat_prefix=limit.stat_prefix,
        bucket=made,
        status=status if status >= _STATUS_MIN else 429,
        enabled_share=_fraction(limit, "filter_enabled", path, 0.0),
        enforced_share=_fraction(limit, "filter_enforced", path, 0.0),
        response_headers=HeaderMutation(
            add=added_headers(limit.response_headers_to_add, join(path, "response_headers_to_add"))
        ),
        tells_quota=limit.enable_x_ratelimit_headers != 0,
    )


def decode_session(session: Any, path: str) -> SessionPolicy | None:
    """A StatefulSession; None when it names no state, which switches the filter off (Envoy)."""
    only(session, path, "session_state", "stat_prefix")
    if not session.HasField("session_state"):
        return None
    where = join(path, "session_state.typed_config")
    full_name, state = unpack(session.session_state.typed_config, where, lazily(_COOKIE_STATE, _HEADER_STATE))
    if full_name == _HEADER_STATE:
        only(state, where, "name")
        if not state.name:
            raise DecodeError(join(where, "name"), "is empty; name a header")
        return SessionPolicy(header=state.name.lower())
    only(state, where, "cookie")
    cookie, where = state.cookie, join(where, "cookie")
    only(cookie, where, "name", "ttl", "path", "attributes")
    if not cookie.name:
        raise DecodeError(join(where, "name"), "is empty; name the cookie")
    return SessionPolicy(
        cookie=cookie.name,
        ttl_s=int(seconds(cookie, "ttl") or 0),
        path=cookie.path,
        attributes=tuple((one.name, one.value) for one in cookie.attributes),
    )
