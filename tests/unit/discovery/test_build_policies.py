"""What policies become in Envoy's terms."""

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.discovery.localities import ANYWHERE, Locality, Place
from controlplane.discovery.resources import LDS
from controlplane.discovery.snapshot import Scope, Tables
from controlplane.discovery.world import World
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.resources import Json
from tests.every_policy import ROUTES, RULES
from tests.unit.discovery.protos import cluster, endpoints, managers, read, routes
from tests.unit.discovery.small_mesh import (
    SCOPE,
    WEB,
    Built,
    as_sidecar_sees,
    put_routes,
    put_rule,
    put_service,
    small_world,
    to,
)

pytestmark = pytest.mark.unit

CANARY = "canary.shop.svc.cluster.local"


def with_rule(**traffic: Any) -> World:
    world = small_world()
    put_rule(world, 2, trafficPolicy=traffic, subsets=[{"name": "v1", "labels": {"version": "v1"}}])
    put_routes(world, {"route": [to("v1")]}, generation=2)
    return world


def with_routes(*listed: Json) -> Tables:
    world = small_world()
    put_service(world, "canary", "10.96.0.20")
    put_routes(world, *listed, generation=2)
    return Built(world).build()


def one_route(**fields: Any) -> Json:
    (route,) = routes(with_routes({"route": [to("v1")], **fields}))
    return route


def test_every_http_manager_has_the_filters_in_order() -> None:
    tables = Built(small_world()).build()
    for name in ("0.0.0.0_80", "10.96.0.12_9000"):
        for manager in managers(tables, name):
            assert [f.name.removeprefix("envoy.filters.http.") for f in manager.http_filters] == [
                "fault",
                "cors",
                "stateful_session",
                "router",
            ]


@pytest.mark.parametrize(
    ("balancer", "expected"),
    [
        ({"simple": "ROUND_ROBIN"}, {}),
        (
            {"consistentHash": {"useSourceIp": True}},
            {"lb_policy": "RING_HASH"},
        ),
        (
            {"consistentHash": {"useSourceIp": True, "ringHash": {"minimumRingSize": 64}}},
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": "64"}},
        ),
        (
            {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 251}}},
            {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": "251"}},
        ),
        (
            {"warmup": {"duration": "30s", "minimumPercent": 5, "aggression": 2}},
            {
                "lb_policy": "LEAST_REQUEST",
                "least_request_lb_config": {
                    "slow_start_config": {
                        "slow_start_window": "30s",
                        "min_weight_percent": {"value": 5.0},
                        "aggression": {"default_value": 2.0, "runtime_key": "upstream.slow_start_aggression"},
                    }
                },
            },
        ),
        (
            {"simple": "ROUND_ROBIN", "warmupDurationSecs": "1s"},
            {
                "round_robin_lb_config": {
                    "slow_start_config": {
                        "slow_start_window": "1s",
                        "min_weight_percent": {"value": 10.0},
                        "aggression": {"default_value": 1.0, "runtime_key": "upstream.slow_start_aggression"},
                    }
                }
            },
        ),
    ],
)
def test_balancing(balancer: Json, expected: Json) -> None:
    built = cluster(Built(with_rule(loadBalancer=balancer)).build())
    fields = (
        "lb_policy",
        "ring_hash_lb_config",
        "maglev_lb_config",
        "least_request_lb_config",
        "round_robin_lb_config",
    )
    assert {name: built[name] for name in fields if name in built} == expected


@pytest.mark.parametrize(
    ("wanted", "policy"),
    [
        ({"httpHeaderName": "x-user"}, {"header": {"header_name": "x-user"}}),
        (
            {"httpCookie": {"name": "c", "path": "/p", "ttl": "0s"}},
            {"cookie": {"name": "c", "path": "/p", "ttl": "0s"}},
        ),
        ({"httpCookie": {"name": "c"}}, {"cookie": {"name": "c"}}),
        ({"httpQueryParameterName": "q"}, {"query_parameter": {"name": "q"}}),
        ({"useSourceIp": True}, {"connection_properties": {"source_ip": True}}),
    ],
)
def test_routes_to_a_hashing_cluster_carry_its_key(wanted: Json, policy: Json) -> None:
    world = with_rule(loadBalancer={"consistentHash": wanted})
    (route,) = routes(Built(world).build())
    assert route["route"]["hash_policy"] == [policy]
    world.put_virtual_service(("shop", "web"), None)
    (default,) = routes(Built(world).build())
    assert (default["name"], default["route"]["hash_policy"]) == ("default", [policy])


def test_a_new_key_changes_the_routes_to_it() -> None:
    built = Built(with_rule(loadBalancer={"consistentHash": {"httpHeaderName": "a"}}))
    built.build()
    changed = {"consistentHash": {"httpHeaderName": "b"}}
    put_rule(
        built.world, 3, trafficPolicy={"loadBalancer": changed}, subsets=[{"name": "v1", "labels": {"version": "v1"}}]
    )
    (route,) = routes(built.build())
    assert route["route"]["hash_policy"] == [{"header": {"header_name": "b"}}]


def test_keys_of_a_split_are_listed_once() -> None:
    world = with_rule(loadBalancer={"consistentHash": {"httpHeaderName": "a"}})
    put_routes(world, {"route": [to("v1", 50), to("", 50)]}, generation=3)
    (route,) = routes(Built(world).build())
    assert route["route"]["hash_policy"] == [{"header": {"header_name": "a"}}]


def test_connections_checks_and_budgets() -> None:
    world = with_rule(
        connectionPool={
            "tcp": {
                "tcpKeepalive": {"probes": 3, "time": "60s", "interval": "5s"},
                "maxConnectionDuration": "2h",
                "idleTimeout": "1h",
            },
            "http": {"idleTimeout": "30s"},
        },
        retryBudget={"percent": 30, "minRetryConcurrency": 0},
        outlierDetection={"minHealthPercent": 0, "splitExternalLocalOriginErrors": True},
    )
    built = cluster(Built(world).build(), subset="v1")
    probing = {"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 5}
    assert built["upstream_connection_options"] == {"tcp_keepalive": probing}
    (options,) = built["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {"idle_timeout": "30s", "max_connection_duration": "7200s"}
    (threshold,) = built["circuit_breakers"]["thresholds"]
    assert threshold["retry_budget"] == {"budget_percent": {"value": 30.0}, "min_retry_concurrency": 0}
    assert built["common_lb_config"] == {"healthy_panic_threshold": {}}
    assert built["outlier_detection"]["split_external_local_origin_errors"]
    assert built["outlier_detection"]["always_eject_one_host"]


@pytest.mark.parametrize(
    ("text", "kind", "config"),
    [
        ('{"path": "/h", "host": "web"}', "http_health_check", {"path": "/h", "host": "web"}),
        ("{}", "tcp_health_check", {}),
    ],
)
def test_annotations_reach_the_cluster(text: str, kind: str, config: Json) -> None:
    world = small_world()
    annotations = {"meshwork.dev/lb": "PEAK_EWMA", "meshwork.dev/health-check": text}
    meta = {"name": "web", "namespace": "shop", "generation": 2, "annotations": annotations}
    world.put_destination_rule(("shop", "web"), DestinationRule.of({"metadata": meta, "spec": {"host": "web"}}))
    built = cluster(Built(world).build())
    assert built["metadata"]["filter_metadata"]["meshwork.dev"]["lb"] == "PEAK_EWMA"
    assert built["lb_policy"] == "LEAST_REQUEST"
    (check,) = built["health_checks"]
    times = {"timeout": "1s", "interval": "10s", "unhealthy_threshold": 3, "healthy_threshold": 1}
    assert check == {**times, kind: config}


def test_tcp_limits_reach_the_listener_of_the_port() -> None:
    world = small_world()
    spec = {
        "host": "db",
        "trafficPolicy": {"connectionPool": {"tcp": {"idleTimeout": "1m", "maxConnectionDuration": "1h"}}},
    }
    rule = DestinationRule.of({"metadata": {"name": "db", "namespace": "shop", "generation": 1}, "spec": spec})
    world.put_destination_rule(("shop", "db"), rule)
    (proxy,) = read(Built(world).build(), LDS, "10.96.0.11_5432")["default_filter_chain"]["filters"]
    found = proxy["typed_config"]
    assert (found["idle_timeout"], found["max_downstream_connection_duration"]) == ("60s", "3600s")


def test_mirrors() -> None:
    mirrors = [{"destination": {"host": "canary"}, "percentage": {"value": 0.5}}, {"destination": {"host": "web"}}]
    found = one_route(mirrors=mirrors)["route"]["request_mirror_policies"]
    assert found == [
        {
            "cluster": f"outbound|80||{CANARY}",
            "runtime_fraction": {"default_value": {"numerator": 5000, "denominator": "MILLION"}},
        },
        {
            "cluster": f"outbound|80||{WEB}",
            "runtime_fraction": {"default_value": {"numerator": 1000000, "denominator": "MILLION"}},
        },
    ]
    assert "request_mirror_policies" not in one_route(mirror={"host": "web"}, mirrorPercentage={"value": 0})["route"]


def test_a_mirror_that_has_gone_is_left_out() -> None:
    world = small_world()
    put_service(world, "canary", "10.96.0.20")
    put_routes(world, {"route": [to("v1")], "mirror": {"host": "canary"}}, generation=2)
    built = Built(world)
    assert "request_mirror_policies" in routes(built.build())[0]["route"]
    world.put_service(("shop", "canary"), None)
    assert "request_mirror_policies" not in routes(built.build())[0]["route"]


def test_cors_and_faults() -> None:
    policy = {
        "allowOrigins": [{"prefix": "https://a"}],
        "allowMethods": ["GET", "PUT"],
        "maxAge": "1h",
        "allowCredentials": True,
    }
    fault = {
        "delay": {"fixedDelay": "1500ms", "percentage": {"value": 0.01}},
        "abort": {"httpStatus": 503, "percentage": {"value": 20}},
    }
    found = one_route(corsPolicy=policy, fault=fault)["typed_per_filter_config"]
    assert found["envoy.filters.http.cors"] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"prefix": "https://a"}],
        "allow_methods": "GET,PUT",
        "max_age": "3600",
        "allow_credentials": True,
        "forward_not_matching_preflights": True,
    }
    assert found["envoy.filters.http.fault"] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": {"fixed_delay": "1.500s", "percentage": {"numerator": 100, "denominator": "MILLION"}},
        "abort": {"http_status": 503, "percentage": {"numerator": 200000, "denominator": "MILLION"}},
    }
    redirect = {"redirect": {"uri": "/x"}, "fault": {"delay": fault["delay"]}}
    assert "envoy.filters.http.fault" in routes(with_routes(redirect))[0]["typed_per_filter_config"]


def test_rewrites_and_names() -> None:
    matches = [{"name": "one", "uri": {"regex": "/a.*"}, "statPrefix": "as"}, {"uri": {"prefix": "/b"}}]
    rewrite = {"uriRegexRewrite": {"match": "^/a", "rewrite": "/b"}, "authority": "x"}
    one, two = routes(with_routes({"name": "web", "match": matches, "route": [to("v1")], "rewrite": rewrite}))
    assert (one["name"], one["stat_prefix"], two["name"]) == ("web.one", "as", "web")
    assert one["route"]["regex_rewrite"] == {"pattern": {"regex": "^/a"}, "substitution": "/b"}
    assert one["route"]["host_rewrite_literal"] == "x"


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"scheme": "https"}, {"scheme_redirect": "https"}),
        ({"scheme": "https", "derivePort": "FROM_REQUEST_PORT"}, {"scheme_redirect": "https", "port_redirect": 80}),
        ({"authority": "x", "derivePort": "FROM_REQUEST_PORT"}, {"host_redirect": "x"}),
        ({"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT"}, {"scheme_redirect": "https"}),
    ],
)
def test_redirects_on_port_80(redirect: Json, expected: Json) -> None:
    assert routes(with_routes({"redirect": redirect}))[0]["redirect"] == expected


def test_redirects_on_another_port_name_it_or_the_schemes() -> None:
    world = small_world()
    for derive, expected in (("FROM_REQUEST_PORT", 9000), ("FROM_PROTOCOL_DEFAULT", 443)):
        redirect = {"scheme": "https", "derivePort": derive}
        meta = {"name": "odd", "namespace": "shop", "generation": expected}
        obj = {"metadata": meta, "spec": {"hosts": ["odd"], "http": [{"redirect": redirect}]}}
        world.put_virtual_service(("shop", "odd"), VirtualService.of(obj))
        (route,) = routes(Built(world).build(), "odd.shop.svc.cluster.local:9000", "9000")
        assert route["redirect"]["port_redirect"] == expected


def test_retries() -> None:
    retries = {
        "attempts": 2,
        "retryOn": "envoy-ratelimited",
        "backoff": "30ms",
        "retryIgnorePreviousHosts": False,
    }
    found = one_route(retries=retries)["route"]["retry_policy"]
    assert found["retry_back_off"] == {"base_interval": "0.030s", "max_interval": "0.300s"}
    assert "retry_host_predicate" not in found
    plain = one_route()["route"]["retry_policy"]
    assert [p["name"] for p in plain["retry_host_predicate"]] == ["envoy.retry_host_predicates.previous_hosts"]


def test_annotations_reach_the_routes() -> None:
    world = small_world()
    annotations = {"meshwork.dev/replay": "any", "meshwork.dev/retriable-headers": "x-again"}
    retries = {"attempts": 1, "retryOn": "retriable-headers"}
    obj = {
        "metadata": {"name": "web", "namespace": "shop", "generation": 2, "annotations": annotations},
        "spec": {"hosts": ["web"], "http": [{"route": [to("v1")], "retries": retries}]},
    }
    world.put_virtual_service(("shop", "web"), VirtualService.of(obj))
    (route,) = routes(Built(world).build())
    assert route["metadata"]["filter_metadata"]["meshwork.dev"]["replay"] == "any"
    assert route["route"]["retry_policy"]["retriable_headers"] == [{"name": "x-again", "present_match": True}]


def placed_world() -> World:
    world = small_world()
    world.put_node("node-1", Locality("north", "n1"))
    world.put_node("node-2", Locality("south", "s1"))
    for name, node in (("web-1", "node-1"), ("web-2", "node-2")):
        world.put_pod(("shop", name), replace(world.pods["shop", name], node=node))
    return world


def scope_on(built: Built, node: str) -> Scope:
    built.builder.settle_policies()
    return built.builder.scope_of("shop", {}, None, intercepts=True, node=node)


def test_clients_share_their_tables_until_a_policy_asks_for_the_place() -> None:
    built = Built(placed_world())
    assert scope_on(built, "node-1") == scope_on(built, "node-2") == SCOPE
    put_rule(built.world, 2, trafficPolicy={"loadBalancer": {"localityLbSetting": {}}, "outlierDetection": {}})
    assert scope_on(built, "node-1").place == Place(Locality("north", "n1"))
    assert scope_on(built, "node-9").place == ANYWHERE


def test_endpoints_by_the_clients_place() -> None:
    world = placed_world()
    put_rule(world, 2, trafficPolicy={"loadBalancer": {"localityLbSetting": {}}, "outlierDetection": {}})
    built = Built(world)
    north, south = scope_on(built, "node-1"), scope_on(built, "node-2")
    built.build(north, south)
    regions = {}
    for scope in (north, south):
        groups = endpoints(built.snapshot.scopes[scope])
        regions[scope] = [(g["locality"]["region"], g.get("priority", 0)) for g in groups]
    assert regions == {north: [("north", 0), ("south", 1)], south: [("south", 0), ("north", 1)]}
    assert cluster(built.snapshot.scopes[north])["common_lb_config"] == {"locality_weighted_lb_config": {}}


def test_a_node_that_moves_moves_its_endpoints() -> None:
    built = Built(placed_world())
    assert [g["locality"]["region"] for g in endpoints(built.build())] == ["north", "south"]
    built.world.put_node("node-2", Locality("north", "n1"))
    (group,) = endpoints(built.build())
    assert (group["locality"]["region"], group["load_balancing_weight"]) == ("north", 2)
    built.world.put_node("node-2", None)
    assert [g["locality"]["region"] for g in endpoints(built.build())] == ["mesh", "north"]
    assert not built.world.dirty
    built.world.put_node("node-2", Locality())
    assert not built.world.dirty


def test_the_sidecar_takes_everything_at_once() -> None:
    """Its decoder refuses what it does not carry out."""
    world = small_world()
    put_service(world, "canary", "10.96.0.20")
    for name, (spec, annotations) in RULES.items():
        meta = {"name": name, "namespace": "shop", "generation": 2, "annotations": annotations}
        host = {"web": "web", "ring": "canary", "maglev": "odd", "slow": "db"}[name]
        rule = DestinationRule.of({"metadata": meta, "spec": {**spec, "host": host}})
        world.put_destination_rule(("shop", name), rule)
    text = json.dumps(ROUTES).replace('"ring"', '"canary"').replace('"slow"', '"canary"')
    put_routes(world, *json.loads(text), generation=2)
    annotations = {"meshwork.dev/replay": "any", "meshwork.dev/retriable-headers": "x-again, x-more"}
    meta = {"name": "web", "namespace": "shop", "generation": 3, "annotations": annotations}
    service = VirtualService.of({"metadata": meta, "spec": {"hosts": ["web"], "http": json.loads(text)}})
    world.put_virtual_service(("shop", "web"), service)
    built = Built(world)
    tables = built.build()
    assert all(verdict.is_accepted for verdict in built.builder.policies.verdicts.values())
    snapshot = as_sidecar_sees(tables)
    virtual_host = next(h for h in snapshot.route_tables["80"].virtual_hosts if h.name == f"{WEB}:80")
    assert len(virtual_host.routes) == len(ROUTES)
