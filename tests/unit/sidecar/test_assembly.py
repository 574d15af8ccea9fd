"""Resources come in any order; a snapshot is made when all references can be followed."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2, json_format

from mesh.xds.errors import DecodeError
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.decode.assembly import Assembly

pytestmark = pytest.mark.unit

_TYPES = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINT: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    ROUTE: route_pb2.RouteConfiguration,
}
_ADS = {"ads": {}, "resource_api_version": "V3"}


def packed(type_url: str, document: dict[str, Any]) -> any_pb2.Any:
    message = any_pb2.Any()
    message.Pack(json_format.ParseDict(document, _TYPES[type_url]()))
    return message


def eds_cluster(**fields: Any) -> any_pb2.Any:
    return packed(CLUSTER, {"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": _ADS}, **fields})


def endpoints(*addresses: str) -> any_pb2.Any:
    found = [{"endpoint": {"address": {"socket_address": {"address": one, "port_value": 80}}}} for one in addresses]
    return packed(ENDPOINT, {"cluster_name": "c", "endpoints": [{"lb_endpoints": found}]})


def http_listener() -> any_pb2.Any:
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": "r", "config_source": _ADS},
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 80}}
    chains = [{"filters": [{"name": "hcm", "typed_config": manager}]}]
    return packed(LISTENER, {"name": "l", "address": address, "filter_chains": chains})


def routes(cluster: str = "c") -> any_pb2.Any:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    return packed(ROUTE, {"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [route]}]})


def complete() -> Assembly:
    assembly = Assembly()
    assembly.put(CLUSTER, "c", eds_cluster())
    assembly.put(ENDPOINT, "c", endpoints("10.0.0.1"))
    assembly.put(LISTENER, "l", http_listener())
    assembly.put(ROUTE, "r", routes())
    return assembly


def test_snapshot_waits_for_endpoints_and_routes() -> None:
    assembly = Assembly()
    assembly.put(CLUSTER, "c", eds_cluster())
    assembly.put(LISTENER, "l", http_listener())
    assert assembly.snapshot() is None
    assert assembly.staged.missing() == ('routes "r"', 'endpoints "c"')
    assembly.put(ENDPOINT, "c", endpoints("10.0.0.1"))
    assert assembly.snapshot() is None
    assembly.put(ROUTE, "r", routes())
    snapshot = assembly.snapshot()
    assert snapshot is not None
    assert [one.address for one in snapshot.clusters["c"].endpoints] == ["10.0.0.1"]
    assert [one.name for one in snapshot.listeners] == ["l"]
    assert list(snapshot.route_tables) == ["r"]


def test_overdue_references_are_left_out() -> None:
    assembly = Assembly()
    assembly.put(CLUSTER, "c", eds_cluster())
    assembly.put(LISTENER, "l", http_listener())
    snapshot = assembly.snapshot(despite_missing=True)
    assert snapshot is not None
    assert snapshot.clusters["c"].endpoints == ()
    assert snapshot.listeners == ()


def test_removed_endpoints_are_an_empty_set() -> None:
    assembly = complete()
    assembly.remove(ENDPOINT, "c")
    snapshot = assembly.snapshot()
    assert snapshot is not None
    assert snapshot.clusters["c"].endpoints == ()


def test_what_nothing_names_any_more_is_dropped() -> None:
    assembly = complete()
    assembly.remove(LISTENER, "l")
    assembly.remove(CLUSTER, "c")
    assembly.forget_unwanted()
    assert (assembly.staged.routes, assembly.staged.endpoints) == ({}, {})


def test_bad_resource_keeps_the_one_before() -> None:
    assembly = complete()
    with pytest.raises(DecodeError, match=r'Cluster "c"\.health_checks'):
        assembly.put(CLUSTER, "c", eds_cluster(health_checks=[{"timeout": "1s"}]))
    assert assembly.snapshot() is not None


def test_roll_back_returns_to_the_last_committed_resources() -> None:
    assembly = complete()
    assembly.commit()
    assembly.put(ENDPOINT, "c", endpoints("10.0.0.9"))
    assembly.remove(ROUTE, "r")
    assembly.roll_back()
    snapshot = assembly.snapshot()
    assert snapshot is not None
    assert snapshot.clusters["c"].endpoints[0].address == "10.0.0.1"


def test_unchanged_route_table_stays_the_same_object() -> None:
    assembly = complete()
    first = assembly.snapshot()
    assembly.commit()
    assembly.put(ENDPOINT, "c", endpoints("10.0.0.2"))
    second = assembly.snapshot()
    assert first is not None
    assert second is not None
    assert first.route_tables["r"] is second.route_tables["r"]  # so it is not compiled again
    assert first.version != second.version


def test_route_to_an_http2_cluster_is_refused() -> None:
    assembly = complete()
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    names = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    assembly.put(CLUSTER, "c", eds_cluster(typed_extension_protocol_options=names))
    with pytest.raises(DecodeError, match='cluster "c", which wants HTTP/2'):
        assembly.snapshot()


def test_wrong_type_inside_is_refused() -> None:
    with pytest.raises(DecodeError, match="is not supported; known here"):
        Assembly().put(CLUSTER, "c", routes())
