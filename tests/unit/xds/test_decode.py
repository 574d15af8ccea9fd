"""Decoders: Envoy's JSON form -> our values, and errors that name the field."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from google.protobuf import json_format

from mesh.balance.endpoint import Health, LbPolicy
from mesh.resilience.retry import Replay, RetryOn
from mesh.routing.table import DirectResponse, Forward, HeaderValue, MatchKind, PathKind, Redirect, RouteTable
from mesh.xds.decode_endpoints import decode_endpoints
from mesh.xds.decode_routes import decode_route_table
from mesh.xds.errors import DecodeError
from sidecar.config import AccessLogFormat, ClusterKind, Direction, HttpFilter, TcpFilter
from sidecar.decode.bootstrap import KNOWN_BY_NAME
from sidecar.decode.clusters import DecodedCluster, decode_cluster
from sidecar.decode.listeners import decode_listener

pytestmark = pytest.mark.unit

Json = dict[str, Any]
KNOWN = (*KNOWN_BY_NAME, maglev_pb2)
"""Imported so that the JSON reader knows their messages."""
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


def table(*routes: Json, **host: Any) -> RouteTable:
    document = {"name": "t", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": list(routes), **host}]}
    return decode_route_table(json_format.ParseDict(document, route_pb2.RouteConfiguration()), "routes")


def cluster(**fields: Any) -> DecodedCluster:
    return decode_cluster(json_format.ParseDict({"name": "c", **fields}, cluster_pb2.Cluster()), "cluster")


def manager(**fields: Any) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "rds": {"route_config_name": "80", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [ROUTER],
        **fields,
    }


def chain(config: Json, **fields: Any) -> Json:
    return {"filters": [{"name": "filter", "typed_config": config}], **fields}


def listener(*chains: Json, **fields: Any) -> Any:
    document = {
        "name": "l",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
        "filter_chains": list(chains),
        **fields,
    }
    return decode_listener(json_format.ParseDict(document, listener_pb2.Listener()), "listener")


def test_route_carries_split_retry_timeout_and_provenance() -> None:
    cause = {
        "kind": "VirtualService",
        "namespace": "shop",
        "name": "web",
        "field": "spec.http[0]",
        "line": 14,
        "file": "w.yaml",
    }
    decoded = table(
        {
            "name": "canary",
            "match": {
                "prefix": "/",
                "headers": [{"name": "X-User", "string_match": {"exact": "a"}, "invert_match": True}],
            },
            "route": {
                "weighted_clusters": {"clusters": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}]},
                "timeout": "0s",
                "retry_policy": {
                    "retry_on": "5xx,reset",
                    "num_retries": 3,
                    "per_try_timeout": "0.250s",
                    "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}],
                    "retry_back_off": {"base_interval": "0.01s"},
                },
            },
            "metadata": {"filter_metadata": {"meshwork.dev": cause}},
        },
        include_request_attempt_count=True,
    )
    host = decoded.virtual_hosts[0]
    route = host.routes[0]
    assert host.include_attempt_count
    assert isinstance(route.action, Forward)
    assert [(one.name, one.weight) for one in route.action.clusters] == [("v1", 90), ("v2", 10)]
    assert route.action.timeout_s is None
    retry = route.action.retry
    assert retry is not None
    assert (retry.conditions, retry.max_retries) == (RetryOn.SERVER_ERROR | RetryOn.RESET, 3)
    assert (retry.per_try_timeout_s, retry.backoff.base_s, retry.backoff.cap_s) == (0.25, 0.01, 0.1)
    assert retry.replay is Replay.SAFE
    assert str(route.provenance) == "VirtualService shop/web spec.http[0] (w.yaml:14)"
    condition = route.match.headers[0]
    assert condition.match is not None
    assert (condition.name, condition.invert, condition.match.kind) == ("x-user", True, MatchKind.EXACT)


def test_unset_timeout_is_envoys_default() -> None:
    action = table({"match": {"prefix": "/"}, "route": {"cluster": "c"}}).virtual_hosts[0].routes[0].action
    assert isinstance(action, Forward)
    assert (action.timeout_s, action.idle_timeout_s, action.retry) == (15.0, None, None)


@pytest.mark.parametrize(
    ("match", "kind", "value"),
    [
        ({"path": "/a"}, PathKind.EXACT, "/a"),
        ({"prefix": "/a"}, PathKind.PREFIX, "/a"),
        ({"path_separated_prefix": "/a"}, PathKind.SEGMENT_PREFIX, "/a"),
        ({"safe_regex": {"regex": "/a.*"}}, PathKind.REGEX, "/a.*"),
    ],
)
def test_path_matches(match: Json, kind: PathKind, value: str) -> None:
    found = table({"match": match, "route": {"cluster": "c"}}).virtual_hosts[0].routes[0].match.path
    assert (found.kind, found.value) == (kind, value)


def test_redirect_direct_response_and_header_changes() -> None:
    routes = table(
        {"match": {"prefix": "/r"}, "redirect": {"https_redirect": True, "response_code": "FOUND", "host_redirect": "x"}},
        {
            "match": {"prefix": "/d"},
            "direct_response": {"status": 418, "body": {"inline_string": "tea"}},
            "response_headers_to_add": [
                {"header": {"key": "X-A", "value": "100%%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                {"header": {"key": "X-B", "value": "b"}},
            ],
            "request_headers_to_remove": ["X-C"],
        },
    ).virtual_hosts[0].routes  # fmt: skip
    assert routes[0].action == Redirect(scheme="https", host="x", status=302)
    assert routes[1].action == DirectResponse(status=418, body=b"tea")
    assert routes[1].response_headers.add == (
        HeaderValue(name="x-a", value="100%", append=False),
        HeaderValue(name="x-b", value="b", append=True),
    )
    assert routes[1].request_headers.remove == ("x-c",)


@pytest.mark.parametrize(
    ("route", "path", "problem"),
    [
        ({"match": {"prefix": "/"}, "route": {"cluster_header": "x"}}, "route.cluster_header", "not supported"),
        (
            {"match": {"prefix": "/"}, "route": {"cluster": "c", "hash_policy": [{}]}},
            "route.hash_policy",
            "want one of header",
        ),
        ({"match": {"grpc": {}, "prefix": "/"}, "route": {"cluster": "c"}}, "match.grpc", "not supported"),
        (
            {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "c"}},
            "match.safe_regex.regex",
            "not a regular",
        ),
        ({"match": {"prefix": "/"}}, "routes[0]", "want one of route"),
        ({"match": {}, "route": {"cluster": "c"}}, "match", "want one of prefix"),
        (
            {"match": {"prefix": "/"}, "route": {"cluster": "c", "retry_policy": {"retry_on": "nonsense"}}},
            "route.retry_policy",
            "unknown condition",
        ),
        (
            {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}}},
            "route",
            "sum to more than 0",
        ),
        (
            {
                "match": {"prefix": "/"},
                "route": {"weighted_clusters": {"total_weight": 100, "clusters": [{"name": "a", "weight": 90}]}},
            },
            "total_weight",
            "weights sum to 90",
        ),
        (
            {
                "match": {"prefix": "/"},
                "route": {"cluster": "c"},
                "request_headers_to_add": [{"header": {"key": "a", "value": "%START_TIME%"}}],
            },
            "request_headers_to_add[0].header.value",
            "not supported",
        ),
    ],
)
def test_what_a_route_may_not_say_is_named(route: Json, path: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        table(route)
    assert path in caught.value.path
    assert caught.value.path.startswith("routes.virtual_hosts[0]")


def test_cluster_with_everything() -> None:
    decoded = cluster(
        type="EDS",
        eds_cluster_config={"eds_config": {"ads": {}}},
        connect_timeout="1.5s",
        lb_policy="LEAST_REQUEST",
        least_request_lb_config={"choice_count": 4},
        circuit_breakers={"thresholds": [{"max_connections": 7, "max_retries": 2}]},
        outlier_detection={
            "consecutive_5xx": 3,
            "base_ejection_time": "5s",
            "max_ejection_percent": 100,
            "enforcing_success_rate": 0,
        },
        common_lb_config={"healthy_panic_threshold": {"value": 0}},
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": "9s", "max_requests_per_connection": 5},
            }
        },
    )
    found = decoded.cluster
    assert (decoded.eds_name, decoded.is_http2, found.kind) == ("c", False, ClusterKind.STATIC)
    assert (found.lb_policy, found.choice_count, found.connect_timeout_s) == (LbPolicy.LEAST_REQUEST, 4, 1.5)
    assert (found.limits.max_connections, found.limits.retry_budget.min_concurrency) == (7, 2)
    assert found.outlier is not None
    assert (found.outlier.consecutive_5xx, found.outlier.enforcing_consecutive_gateway) == (3, 0)
    assert (found.panic_threshold_percent, found.idle_timeout_s, found.max_requests_per_connection) == (0.0, 9.0, 5)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"health_checks": [{"timeout": "1s"}]}, "cluster.health_checks[0]"),
        ({"lb_policy": "CLUSTER_PROVIDED"}, "cluster.lb_policy"),
        ({"outlier_detection": {"enforcing_consecutive_5xx": 101}}, "cluster.outlier_detection"),
        ({"type": "EDS", "eds_cluster_config": {}}, "cluster.eds_cluster_config.eds_config"),
        ({"transport_socket": {"name": "tls"}}, "cluster.transport_socket"),
    ],
)
def test_what_a_cluster_may_not_say_is_named(fields: Json, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        cluster(**fields)
    assert caught.value.path == path


def test_endpoints_keep_weight_priority_health_and_workload() -> None:
    address = {"socket_address": {"address": "10.0.0.1", "port_value": 80}}
    workload = {"filter_metadata": {"meshwork.dev": {"workload": "web", "version": "v1"}}}
    document = {
        "cluster_name": "c",
        "endpoints": [
            {
                "priority": 1,
                "locality": {"zone": "a"},
                "lb_endpoints": [
                    {
                        "endpoint": {"address": address},
                        "load_balancing_weight": 3,
                        "health_status": "DRAINING",
                        "metadata": workload,
                    }
                ],
            }
        ],
    }
    (found,) = decode_endpoints(json_format.ParseDict(document, endpoint_pb2.ClusterLoadAssignment()), "e")
    assert (found.address, found.port, found.weight, found.priority, found.health) == (
        "10.0.0.1",
        80,
        3,
        1,
        Health.DRAINING,
    )
    assert found.workload == {"workload": "web", "version": "v1"}


def test_endpoint_by_name_is_refused() -> None:
    address = {"socket_address": {"address": "web.example", "port_value": 80}}
    document = {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    with pytest.raises(DecodeError, match="not an IP address") as caught:
        decode_endpoints(json_format.ParseDict(document, endpoint_pb2.ClusterLoadAssignment()), "e")
    assert caught.value.path == "e.endpoints[0].lb_endpoints[0].endpoint.address"


def test_listener_with_detection_inbound_chains_and_tracing() -> None:
    tcp = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "p"}
    tracing = {
        "random_sampling": {"value": 5},
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "mesh-traces"}},
                "service_name": "web",
            },
        },
    }
    log = {
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"json_format": {"a": "%PROTOCOL%"}},
        },
    }
    found = listener(
        chain(
            manager(tracing=tracing, access_log=[log], normalize_path=False),
            filter_chain_match={"destination_port": 8080, "application_protocols": ["http/1.0", "http/1.1"]},
        ),
        chain(tcp, filter_chain_match={"transport_protocol": "tls"}),
        default_filter_chain=chain(tcp),
        traffic_direction="INBOUND",
        bind_to_port=False,
        listener_filters=[
            {
                "name": "envoy.filters.listener.original_dst",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
                },
            }
        ],
        listener_filters_timeout="2s",
    )
    assert (found.direction, found.bind, found.use_original_dst) == (Direction.INBOUND, False, True)
    assert found.detect_timeout_s == 2.0
    http, plain = found.chains
    assert (http.destination_port, http.detected_http, plain.destination_port) == (8080, True, None)
    assert isinstance(http.filter, HttpFilter)
    assert isinstance(plain.filter, TcpFilter)
    assert http.filter.route_table == "80"
    assert http.filter.tracing is not None
    assert (http.filter.tracing.sampling_percent, http.filter.tracing.collector_cluster) == (5.0, "mesh-traces")
    assert http.filter.access_log is not None
    assert http.filter.access_log.format is AccessLogFormat.JSON


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"strip_any_host_port": True}, "strip_any_host_port", "not supported"),
        ({"http_filters": []}, "http_filters", "router"),
        (
            {"http_filters": [{"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}]},
            "http_filters[0]",
            "want envoy.filters.http.router",
        ),
        ({"codec_type": "HTTP2"}, "codec_type", "HTTP/1.1"),
        (
            {"rds": {"route_config_name": "a", "config_source": {"path_config_source": {"path": "/x"}}}},
            "path_config_source",
            "not supported",
        ),
    ],
)
def test_what_a_connection_manager_may_not_say_is_named(fields: Json, path: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem) as caught:
        listener(chain(manager(**fields)))
    assert caught.value.path.startswith("listener.filter_chains[0].filters[0].typed_config")
    assert path in caught.value.path
