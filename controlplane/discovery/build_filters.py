"""What routes ask of HTTP filters, as typed_per_filter_config, and the filters themselves. Pure.

The filters are in every HTTP connection manager, because listeners are shared by all proxies; without a route that asks
for something they do nothing.
"""

from typing import Any

from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2

from controlplane.discovery.build_matches import string_matcher
from controlplane.discovery.messages import duration, fractional_percent
from policies.values import CompiledRoute, Cors, Fault, Session

FAULT = "envoy.filters.http.fault"
CORS = "envoy.filters.http.cors"
STATEFUL_SESSION = "envoy.filters.http.stateful_session"
ROUTER = "envoy.filters.http.router"


def add_http_filters(manager: Any) -> None:
    """In Istio's order, the router last."""
    for name, config in (
        (FAULT, fault_pb2.HTTPFault()),
        (CORS, cors_pb2.Cors()),
        (STATEFUL_SESSION, stateful_session_pb2.StatefulSession()),
    ):
        added = manager.http_filters.add(name=name)
        added.typed_config.Pack(config)
    manager.http_filters.add(name=ROUTER).typed_config.Pack(router_pb2.Router())


def add_route_filters(route: Any, compiled: CompiledRoute) -> None:
    """The route's own settings of the filters."""
    configs: dict[str, Any] = {
        FAULT: compiled.fault and _fault(compiled.fault),
        CORS: compiled.cors and _cors(compiled.cors),
        STATEFUL_SESSION: compiled.session and _session(compiled.session),
    }
    for name, config in configs.items():
        if config is not None:
            route.typed_per_filter_config[name].Pack(config, deterministic=True)


def _fault(fault: Fault) -> Any:
    built = fault_pb2.HTTPFault()
    if fault.delay_s is not None:
        built.delay.fixed_delay.CopyFrom(duration(fault.delay_s))
        built.delay.percentage.CopyFrom(fractional_percent(fault.delay_percent))
    if fault.abort_status is not None:
        built.abort.http_status = fault.abort_status
        built.abort.percentage.CopyFrom(fractional_percent(fault.abort_percent))
    return built


def _cors(cors: Cors) -> Any:
    built = cors_pb2.CorsPolicy(
        allow_origin_string_match=[string_matcher(origin) for origin in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.exposes),
        max_age="" if cors.max_age_s is None else str(cors.max_age_s),
    )
    if cors.allows_credentials is not None:
        built.allow_credentials.value = cors.allows_credentials
    built.forward_not_matching_preflights.value = cors.forwards_unmatched
    return built


def _session(session: Session) -> Any:
    built = stateful_session_pb2.StatefulSessionPerRoute()
    state = built.stateful_session.session_state
    if session.is_header:
        state.name = "envoy.http.stateful_session.header"
        state.typed_config.Pack(header_pb2.HeaderBasedSessionState(name=session.name))
        return built
    state.name = "envoy.http.stateful_session.cookie"
    cookie = cookie_pb2.CookieBasedSessionState()
    cookie.cookie.name = session.name
    cookie.cookie.path = session.path
    if session.ttl_s is not None:
        cookie.cookie.ttl.CopyFrom(duration(session.ttl_s))
    state.typed_config.Pack(cookie)
    return built
