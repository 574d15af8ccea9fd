"""Health checks of a cluster: Envoy's JSON form -> our value, and errors that name the field."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf import json_format

from mesh.resilience.health_check import HealthCheck
from mesh.resilience.probe import HttpProbe, TcpProbe
from mesh.xds.errors import DecodeError
from sidecar.config import Cluster
from sidecar.decode.clusters import decode_cluster

pytestmark = pytest.mark.unit

Json = dict[str, Any]


def check(**fields: Any) -> Json:
    return {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2, **fields}


def cluster(*checks: Json, **fields: Any) -> Cluster:
    document = {"name": "web", "type": "STATIC", "health_checks": list(checks), **fields}
    return decode_cluster(json_format.ParseDict(document, cluster_pb2.Cluster()), "cluster").cluster


def test_http_check_with_everything() -> None:
    found = cluster(
        check(
            initial_jitter="0.5s",
            interval_jitter="0.25s",
            interval_jitter_percent=10,
            unhealthy_interval="2s",
            unhealthy_edge_interval="1s",
            healthy_edge_interval="3s",
            no_traffic_interval="30s",
            no_traffic_healthy_interval="40s",
            reuse_connection=False,
            always_log_health_check_failures=True,
            always_log_health_check_success=True,
            http_health_check={
                "path": "/live",
                "host": "app",
                "method": "HEAD",
                "expected_statuses": [{"start": 200, "end": 205}],
                "retriable_statuses": [{"start": 503, "end": 504}],
                "request_headers_to_add": [{"header": {"key": "X-Check", "value": "1"}}],
                "request_headers_to_remove": ["user-agent"],
                "receive": [{"text": "6f6b"}],
                "response_buffer_size": 2048,
            },
        )
    )
    assert found.health_checks == (
        HealthCheck(
            probe=HttpProbe(
                path="/live",
                host="app",
                method=b"HEAD",
                lines=(b"x-check: 1",),
                expected=((200, 205),),
                retriable=((503, 504),),
                receive=(b"ok",),
                response_buffer_bytes=2048,
            ),
            timeout_s=1.0,
            interval_s=5.0,
            unhealthy_threshold=3,
            healthy_threshold=2,
            initial_jitter_s=0.5,
            interval_jitter_s=0.25,
            interval_jitter_percent=10,
            unhealthy_interval_s=2.0,
            unhealthy_edge_interval_s=1.0,
            healthy_edge_interval_s=3.0,
            no_traffic_interval_s=30.0,
            no_traffic_healthy_interval_s=40.0,
            reuses_connection=False,
            logs_failures=True,
            logs_passes=True,
        ),
    )


def test_tcp_check_and_defaults() -> None:
    found = cluster(check(tcp_health_check={"send": {"text": "50494e47"}, "receive": [{"text": "504f4e47"}]}))
    (one,) = found.health_checks
    assert one.probe == TcpProbe(send=b"PING", receive=(b"PONG",))
    assert (one.no_traffic_interval_s, one.reuses_connection, one.unhealthy_interval_s) == (60.0, True, None)
    assert cluster(check(tcp_health_check={})).health_checks[0].probe == TcpProbe()
    assert cluster().health_checks == ()
    assert cluster(common_lb_config={"ignore_new_hosts_until_first_hc": True}).ignores_new_hosts_until_checked


@pytest.mark.parametrize(
    ("fields", "where", "problem"),
    [
        ({"grpc_health_check": {}}, "health_checks[0].grpc_health_check", "not supported"),
        ({"custom_health_check": {"name": "redis"}}, "health_checks[0].custom_health_check", "not supported"),
        ({}, "health_checks[0]", "want http_health_check or tcp_health_check"),
        ({"http_health_check": {"path": "live"}}, "health_checks[0]", "want /PATH"),
        ({"http_health_check": {"path": "/", "method": "CONNECT"}}, "health_checks[0]", "CONNECT"),
        ({"http_health_check": {"path": "/", "codec_client_type": "HTTP2"}}, "http_health_check.codec_client_type", "HTTP/1.1"),
        ({"http_health_check": {"path": "/", "send": {"text": "00"}}}, "http_health_check.send", "not supported"),
        ({"http_health_check": {"path": "/", "host": "a b"}}, "http_health_check.host", "not a host name"),
        ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 9, "end": 10}]}}, "health_checks[0]", "100 <="),
        ({"tcp_health_check": {"send": {"text": "xyz"}}}, "tcp_health_check.send.text", "hexadecimal"),
        ({"tcp_health_check": {"receive": [{}]}}, "tcp_health_check.receive[0]", "is empty"),
        ({"tcp_health_check": {}, "timeout": "0s"}, "health_checks[0]", "timeout must be > 0"),
        ({"tcp_health_check": {}, "alt_port": 1}, "health_checks[0].alt_port", "not supported"),
        ({"tcp_health_check": {}, "event_log_path": "/x"}, "health_checks[0].event_log_path", "not supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(fields: Json, where: str, problem: str) -> None:
    with pytest.raises(DecodeError) as caught:
        cluster(check(**fields))
    assert where in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["timeout", "interval", "unhealthy_threshold", "healthy_threshold"])
def test_what_has_no_default_must_be_there(name: str) -> None:
    document = check(tcp_health_check={})
    del document[name]
    with pytest.raises(DecodeError, match=rf"health_checks\[0\]\.{name}: is missing"):
        cluster(document)


def test_second_check_is_refused() -> None:
    with pytest.raises(DecodeError, match="only one check per cluster"):
        cluster(check(tcp_health_check={}), check(tcp_health_check={}))


def test_endpoint_says_where_and_whether_it_is_checked() -> None:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 80}}
    config = {"port_value": 81, "hostname": "h", "disable_active_health_check": True}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address, "health_check_config": config}}]}]
    (found,) = cluster(load_assignment={"cluster_name": "web", "endpoints": endpoints}).endpoints
    assert (found.check_port, found.check_host, found.is_unchecked) == (81, "h", True)
