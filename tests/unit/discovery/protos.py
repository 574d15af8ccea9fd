"""What was built, read back as Envoy's messages."""

from collections.abc import Mapping
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.json_format import MessageToDict

from controlplane.discovery.resources import CDS, EDS, LDS, RDS
from controlplane.discovery.snapshot import Tables
from mesh.api.resources import Json
from tests.unit.discovery.small_mesh import WEB

_CLASSES: Mapping[str, Any] = {
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
}


def read(tables: Tables, type_url: str, name: str) -> Json:
    """One resource, in proto's JSON with its own field names."""
    found: Json = MessageToDict(
        _CLASSES[type_url].FromString(tables[type_url][name].body), preserving_proto_field_name=True
    )
    return found


def cluster(tables: Tables, port: int = 80, subset: str = "", host: str = WEB) -> Json:
    return read(tables, CDS, f"outbound|{port}|{subset}|{host}")


def endpoints(tables: Tables, port: int = 80, subset: str = "", host: str = WEB) -> list[Json]:
    groups: list[Json] = read(tables, EDS, f"outbound|{port}|{subset}|{host}").get("endpoints", [])
    return groups


def routes(tables: Tables, host: str = f"{WEB}:80", table: str = "80") -> list[Json]:
    found = next(h for h in read(tables, RDS, table)["virtual_hosts"] if h["name"] == host)
    listed: list[Json] = found["routes"]
    return listed


def managers(tables: Tables, name: str) -> list[Any]:
    """Every HTTP connection manager of a listener."""
    listener = listener_pb2.Listener.FromString(tables[LDS][name].body)
    found = []
    for chain in listener.filter_chains:
        for network in chain.filters:
            manager = http_connection_manager_pb2.HttpConnectionManager()
            if network.typed_config.Unpack(manager):
                found.append(manager)
    return found
