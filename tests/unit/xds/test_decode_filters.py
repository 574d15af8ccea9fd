"""HTTP filters, their settings per route, and what else routes say: Envoy's JSON form -> our values."""

from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from mesh.http.path import EscapedSlashes
from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.hedge import HedgePolicy
from mesh.resilience.rate_limit import TokenBucketConfig
from mesh.routing.filters import FilterKind
from mesh.routing.hashing import HashPolicy, HashSource
from mesh.routing.headers import Presence
from mesh.routing.match import HeaderMatch, MatchKind, RangeMatch, StringMatch
from mesh.routing.matcher import CompiledTable
from mesh.routing.mirror import Mirror
from mesh.routing.session import SessionPolicy
from mesh.routing.table import Forward, Redirect, Route, RouteTable
from mesh.xds.decode_routes import KnownRoutes, decode_route_table
from mesh.xds.errors import DecodeError
from sidecar.config import AdaptiveConcurrency, HttpFilter, UnderscoreAction
from sidecar.decode.bootstrap import KNOWN_BY_NAME
from sidecar.decode.listeners import decode_listener

pytestmark = pytest.mark.unit

Json = dict[str, Any]
assert KNOWN_BY_NAME  # imported so that the JSON reader knows their messages
HTTP = "type.googleapis.com/envoy.extensions.filters.http"
ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}
CORS = {
    "@type": f"{HTTP}.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"exact": "https://a.example"}, {"suffix": ".b.example"}],
    "allow_methods": "GET, POST",
    "max_age": "600",
    "allow_credentials": True,
}
FAULT = {
    "@type": f"{HTTP}.fault.v3.HTTPFault",
    "delay": {"fixed_delay": "0.5s", "percentage": {"numerator": 25, "denominator": "HUNDRED"}},
    "abort": {"http_status": 418, "percentage": {"numerator": 5, "denominator": "MILLION"}},
    "headers": [{"name": "X-Test", "present_match": True}],
    "max_active_faults": 7,
}
LIMIT = {
    "@type": f"{HTTP}.local_ratelimit.v3.LocalRateLimit",
    "stat_prefix": "limit",
    "status": {"code": "ServiceUnavailable"},
    "token_bucket": {"max_tokens": 10, "tokens_per_fill": 2, "fill_interval": "60s"},
    "filter_enabled": {"default_value": {"numerator": 100}},
    "filter_enforced": {"default_value": {"numerator": 50}},
    "response_headers_to_add": [{"header": {"key": "X-Limited", "value": "yes"}}],
    "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
}
SESSION = {
    "@type": f"{HTTP}.stateful_session.v3.StatefulSession",
    "session_state": {
        "name": "cookie",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
            "cookie": {"name": "home", "path": "/app", "ttl": "120s"},
        },
    },
}
ADAPTIVE = {
    "@type": f"{HTTP}.adaptive_concurrency.v3.AdaptiveConcurrency",
    "gradient_controller_config": {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {"concurrency_update_interval": "0.1s", "max_concurrency_limit": 50},
        "min_rtt_calc_params": {"interval": "60s", "request_count": 10, "jitter": {"value": 10}},
    },
}


def table(*routes: Json, host: Json | None = None, **fields: Any) -> RouteTable:
    hosts = [{"name": "h", "domains": ["*"], "routes": list(routes), **(host or {})}]
    document = {"name": "t", "virtual_hosts": hosts, **fields}
    return decode_route_table(json_format.ParseDict(document, route_pb2.RouteConfiguration()), "routes")


def route(action: Json | None = None, match: Json | None = None, **fields: Any) -> Route:
    action = {"route": {"cluster": "c", **(action or {})}}
    return table({"match": {"prefix": "/", **(match or {})}, **action, **fields}).virtual_hosts[0].routes[0]


def forward(**action: Any) -> Forward:
    found = route(action).action
    assert isinstance(found, Forward)
    return found


def filter_of(**fields: Any) -> HttpFilter:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "rds": {"route_config_name": "80", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [ROUTER],
        **fields,
    }
    document = {
        "name": "l",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    found = decode_listener(json_format.ParseDict(document, listener_pb2.Listener()), "l").chains[0].filter
    assert isinstance(found, HttpFilter)
    return found


def named(name: str, config: Json, **fields: Any) -> Json:
    return {"name": f"envoy.filters.http.{name}", "typed_config": config, **fields}


def test_filters_keep_their_order_and_settings() -> None:
    found = filter_of(
        http_filters=[
            named("cors", {"@type": f"{HTTP}.cors.v3.Cors"}),
            named("fault", FAULT),
            named("adaptive_concurrency", ADAPTIVE),
            named("local_ratelimit", LIMIT),
            named("stateful_session", SESSION),
            ROUTER,
        ]
    )
    assert [kind.value for kind in found.filters] == [
        "cors", "fault", "adaptive_concurrency", "local_ratelimit", "stateful_session",
    ]  # fmt: skip
    fault = found.settings.fault
    assert fault is not None
    assert (fault.policy.delay_s, fault.policy.delay_percent, fault.policy.abort_status) == (0.5, 25.0, 418)
    assert fault.policy.abort_percent == pytest.approx(0.0005)
    assert (fault.policy.max_active, fault.headers) == (7, (HeaderMatch(name="x-test"),))
    limit = found.settings.rate_limit
    assert limit is not None
    assert limit.bucket == TokenBucketConfig(max_tokens=10, tokens_per_fill=2, fill_interval_s=60.0)
    assert (limit.status, limit.enabled_share, limit.enforced_share, limit.tells_quota) == (503, 1.0, 0.5, True)
    assert limit.response_headers.add[0].name == "x-limited"
    assert found.settings.session == SessionPolicy(cookie="home", path="/app", ttl_s=120)
    assert found.adaptive == AdaptiveConcurrency(
        config=AdaptiveConfig(
            percentile=90.0, max_limit=50, min_rtt_interval_s=60.0, min_rtt_requests=10, min_rtt_jitter_percent=10.0
        )
    )


def test_filters_without_settings_change_nothing() -> None:
    found = filter_of(http_filters=[named("fault", {"@type": f"{HTTP}.fault.v3.HTTPFault"}), ROUTER])
    assert (found.filters, found.settings.fault) == ((FilterKind.FAULT,), None)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        (
            [named("buffer", {"@type": "type.googleapis.com/google.protobuf.Empty"}), ROUTER],
            '"envoy.filters.http.buffer"',
        ),
        ([ROUTER, ROUTER], "the router must be the last"),
        ([named("fault", FAULT), named("fault", FAULT), ROUTER], "one of each"),
        ([named("fault", FAULT)], "is the last filter"),
    ],
)
def test_what_a_filter_chain_may_not_be_is_named(filters: list[Json], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        filter_of(http_filters=filters)
    assert "http_filters[" in caught.value.path


def test_a_disabled_filter_waits_for_a_route_that_wants_it() -> None:
    found = filter_of(http_filters=[named("fault", FAULT, disabled=True), ROUTER])
    assert found.settings.disabled == {FilterKind.FAULT}
    wanted = route(typed_per_filter_config={"envoy.filters.http.fault": FAULT}).filters.over(found.settings)
    assert not wanted.disabled
    assert wanted.fault is not None


def test_connection_manager_fields_are_read() -> None:
    found = filter_of(
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        via="mesh",
        xff_num_trusted_hops=2,
        skip_xff_append=True,
        request_timeout="7s",
        server_header_transformation="PASS_THROUGH",
        common_http_protocol_options={
            "max_connection_duration": "60s",
            "max_requests_per_connection": 9,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
    )
    assert (found.normalize_path, found.merge_slashes, found.via) == (True, True, "mesh")
    assert found.escaped_slashes is EscapedSlashes.UNESCAPE_AND_REDIRECT
    assert (found.trusted_hops, found.skip_xff_append, found.request_timeout_s) == (2, True, 7.0)
    assert (found.max_connection_duration_s, found.max_requests_per_connection) == (60.0, 9)
    assert found.underscores is UnderscoreAction.REJECT
    assert not found.adds_server
    assert filter_of() == HttpFilter(stat_prefix="s", route_table="80")


def test_levels_of_settings_are_merged_from_the_inside() -> None:
    cors = "envoy.filters.http.cors"
    outer = {cors: {"@type": f"{HTTP}.cors.v3.CorsPolicy", "allow_methods": "PUT", "expose_headers": "x-a"}}
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    found = table(
        {
            "match": {"prefix": "/"},
            "route": {
                "weighted_clusters": {
                    "clusters": [
                        {"name": "a", "weight": 1, "typed_per_filter_config": {"envoy.filters.http.fault": FAULT}},
                        {"name": "b", "weight": 1},
                    ]
                }
            },
            "typed_per_filter_config": {cors: CORS, "envoy.filters.http.local_ratelimit": off},
        },
        host={"typed_per_filter_config": {**outer, "envoy.filters.http.local_ratelimit": LIMIT}},
    )
    host = found.virtual_hosts[0]
    action = host.routes[0].action
    assert isinstance(action, Forward)
    merged = host.routes[0].filters.over(host.filters.over(found.filters))
    assert merged.cors is not None
    assert (merged.cors.allow_methods, merged.cors.expose_headers) == ("GET, POST", "x-a")
    assert merged.cors.allow_origins[1] == StringMatch(kind=MatchKind.SUFFIX, value=".b.example")
    assert merged.disabled == {FilterKind.LOCAL_RATE_LIMIT}
    assert [one.filters.over(merged).fault is not None for one in action.clusters] == [True, False]


@pytest.mark.parametrize(
    ("config", "path", "problem"),
    [
        ({"envoy.filters.http.lua": {"@type": "type.googleapis.com/google.protobuf.Empty"}}, "lua", "not supported"),
        (
            {"x": {**FAULT, "response_rate_limit": {"fixed_limit": {"limit_kbps": 1}}}},
            "response_rate_limit",
            "supported",
        ),
        ({"x": {**FAULT, "abort": {"grpc_status": 4}}}, "abort.grpc_status", "not supported"),
        (
            {"x": {**FAULT, "delay": {"fixed_delay": "1s", "percentage": {"numerator": 101}}}},
            "numerator",
            "more than all",
        ),
        ({"x": {**LIMIT, "token_bucket": {"max_tokens": 1}}}, '"x"', "fillInterval"),
        ({"x": {**LIMIT, "descriptors": [{"entries": [{"key": "a"}]}]}}, "descriptors", "not supported"),
        (
            {"x": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}},
            "x",
            "usual name",
        ),
    ],
)
def test_settings_that_cannot_be_honoured_are_named(config: Json, path: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        route(typed_per_filter_config=config)
    assert path in caught.value.path
    assert "typed_per_filter_config" in caught.value.path


def test_optional_settings_of_unknown_filters_are_passed_over() -> None:
    unknown = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    wrapped = {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "is_optional": True,
        "config": unknown,
    }
    assert (
        route(typed_per_filter_config={"envoy.filters.http.lua": wrapped}).filters.over(route().filters)
        == route().filters
    )


def test_every_hash_policy() -> None:
    found = forward(
        hash_policy=[
            {"header": {"header_name": "X-User"}, "terminal": True},
            {"cookie": {"name": "c", "ttl": "0s", "path": "/p"}},
            {"connection_properties": {"source_ip": True}},
            {"query_parameter": {"name": "q"}},
        ]
    )
    assert found.hash_policies == (
        HashPolicy(source=HashSource.HEADER, name="x-user", terminal=True),
        HashPolicy(source=HashSource.COOKIE, name="c", ttl_s=0, path="/p"),
        HashPolicy(source=HashSource.SOURCE_IP),
        HashPolicy(source=HashSource.QUERY, name="q"),
    )


def test_mirrors_hedge_upgrades_and_limits() -> None:
    fraction = {"default_value": {"numerator": 1000, "denominator": "TEN_THOUSAND"}}
    found = forward(
        request_mirror_policies=[{"cluster": "m", "runtime_fraction": fraction}, {"cluster": "n"}],
        hedge_policy={"hedge_on_per_try_timeout": True},
        upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}],
        max_stream_duration={"max_stream_duration": "9s"},
        cluster_not_found_response_code="NOT_FOUND",
        host_rewrite_header="X-Host",
        append_x_forwarded_host=True,
    )
    assert found.mirrors == (Mirror(cluster="m", share=0.1), Mirror(cluster="n"))
    assert found.hedge == HedgePolicy(on_per_try_timeout=True)
    assert (found.upgrades, found.max_stream_duration_s) == ((("websocket", False),), 9.0)
    assert (found.missing_cluster_status, found.host_rewrite_header) == (404, "x-host")
    assert found.append_forwarded_host
    with_mirror = table(
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}}, request_mirror_policies=[{"cluster": "m"}]
    )
    assert with_mirror.cluster_names() == {"c", "m"}


def test_split_by_header_hash_and_labels() -> None:
    labels = {"filter_metadata": {"envoy.lb": {"version": "v1", "zone": "a"}}}
    split = {
        "clusters": [
            {"name": "a", "weight": 1, "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v2"}}}},
            {"name": "b", "weight": 1},
        ],
        "header_name": "X-Draw",
    }
    decoded = table({"match": {"prefix": "/"}, "route": {"weighted_clusters": split, "metadata_match": labels}})
    found = decoded.virtual_hosts[0].routes[0].action
    assert isinstance(found, Forward)
    assert (found.split_header, found.split_by_hash) == ("x-draw", False)
    assert found.clusters[0].metadata_match == (("version", "v2"), ("zone", "a"))
    assert found.clusters[1].metadata_match == (("version", "v1"), ("zone", "a"))


def test_matches_by_range_and_by_chance() -> None:
    found = route(
        match={
            "headers": [{"name": "X-N", "range_match": {"start": -1, "end": 10}}],
            "runtime_fraction": {"default_value": {"numerator": 5}},
        }
    ).match
    assert found.headers == (HeaderMatch(name="x-n", range=RangeMatch(start=-1, end=10)),)
    assert found.share == 0.05


def test_header_changes_keep_their_four_ways() -> None:
    options = [
        {"header": {"key": "a", "value": "1"}, "append_action": action}
        for action in ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
    ]
    empty = [{"header": {"key": "e"}}, {"header": {"key": "k"}, "keep_empty_value": True}]
    found = route(request_headers_to_add=[*options, *empty]).request_headers.add
    assert [(value.append, value.when) for value in found[:4]] == [
        (True, Presence.ANY), (True, Presence.ABSENT), (False, Presence.ANY), (False, Presence.PRESENT),
    ]  # fmt: skip
    assert [value.name for value in found[4:]] == ["k"]


def test_redirect_may_rewrite_by_regex() -> None:
    rewrite = {"pattern": {"regex": "^/a/(.*)$"}, "substitution": "/b/\\1"}
    found = table({"match": {"prefix": "/"}, "redirect": {"regex_rewrite": rewrite}}).virtual_hosts[0].routes[0].action
    assert isinstance(found, Redirect)
    assert found.regex_rewrite is not None


def message(*hosts: tuple[str, list[str]]) -> Any:
    document = {
        "name": "t",
        "virtual_hosts": [
            {
                "name": name,
                "domains": [name],
                "routes": [{"match": {"prefix": f"/{cluster}"}, "route": {"cluster": cluster}} for cluster in clusters],
            }
            for name, clusters in hosts
        ],
    }
    return json_format.ParseDict(document, route_pb2.RouteConfiguration())


def test_what_has_not_changed_is_neither_decoded_nor_compiled_again() -> None:
    known = KnownRoutes()
    first = decode_route_table(message(("a", ["x", "y"]), ("b", ["z"])), "t", known)
    second = decode_route_table(message(("new", ["x"]), ("b", ["z"]), ("a", ["x", "changed"])), "t", known)
    assert [host.name for host in second.virtual_hosts] == ["new", "b", "a"]
    assert second.virtual_hosts[1] is first.virtual_hosts[1]
    assert second.virtual_hosts[2].routes[0] is first.virtual_hosts[0].routes[0]
    assert second == decode_route_table(message(("new", ["x"]), ("b", ["z"]), ("a", ["x", "changed"])), "t")
    third = decode_route_table(message(("b", ["z"])), "t", known)
    assert (len(known.hosts), len(known.routes)) == (1, 1)
    before = CompiledTable(first)
    after = CompiledTable(third, before)
    assert after.find_host(b"b") is before.find_host(b"b")
    assert after.find_host(b"a") is None
    changed = CompiledTable(second, before)
    assert changed.find_host(b"a") is not before.find_host(b"a")


def test_a_table_that_cannot_be_decoded_leaves_what_is_known() -> None:
    known = KnownRoutes()
    first = decode_route_table(message(("a", ["x"])), "t", known)
    broken = message(("a", ["x"]), ("b", [""]))
    broken.virtual_hosts[1].routes[0].match.Clear()
    with pytest.raises(DecodeError, match="want one of prefix"):
        decode_route_table(broken, "t", known)
    assert decode_route_table(message(("a", ["x"])), "t", known).virtual_hosts[0] is first.virtual_hosts[0]
