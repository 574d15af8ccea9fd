"""xDS resources of one HTTP service, and an ADS server that has them: what the sidecar's tests configure it with."""

import datetime
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.config.trace.v3 import opentelemetry_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import json_format

from mesh.identity.pki import CertificateAuthority, CertificateRequest, KeyPair
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from tests.component.ads_server import AdsServer

KNOWN_BY_NAME = (opentelemetry_pb2, router_pb2, http_connection_manager_pb2)
"""Modules of messages that `http_listener` packs."""
_ADS = {"ads": {}, "resource_api_version": "V3"}


def message(kind: Any, document: dict[str, Any]) -> Any:
    return json_format.ParseDict(document, kind())


ORIGIN = "outbound|80||origin.shop.svc.cluster.local"


def eds_cluster() -> Any:
    return message(
        cluster_pb2.Cluster,
        {"name": ORIGIN, "type": "EDS", "eds_cluster_config": {"eds_config": _ADS, "service_name": "o"}},
    )


def endpoints(port: int) -> Any:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    workload = {"filter_metadata": {"meshwork.dev": {"workload": "origin-v1", "namespace": "shop", "version": "v1"}}}
    groups = [{"lb_endpoints": [{"endpoint": {"address": address}, "metadata": workload}]}]
    return message(endpoint_pb2.ClusterLoadAssignment, {"cluster_name": "o", "endpoints": groups})


def http_listener(sampling: float = 0.0) -> Any:
    tracing = {
        "random_sampling": {"value": sampling},
        "provider": {
            "name": "otel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "mesh-traces"}},
            },
        },
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": "r", "config_source": _ADS},
        "http_filters": [{"name": "router", "typed_config": router}],
        "tracing": tracing,
    }
    return message(
        listener_pb2.Listener,
        {
            "name": "l",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
        },
    )


def routes(**route: Any) -> Any:
    document = {"match": {"prefix": "/"}, "route": {"cluster": ORIGIN}, **route}
    hosts = [{"name": "h", "domains": ["*"], "routes": [document]}]
    return message(route_pb2.RouteConfiguration, {"name": "r", "virtual_hosts": hosts})


def certificates(folder: Path) -> tuple[Path, KeyPair]:
    now = datetime.datetime.now(datetime.UTC)
    authority = CertificateAuthority.load_or_create(folder, now)
    return authority.cert_file, authority.ensure(
        "ads", CertificateRequest(common_name="ads", names=("127.0.0.1",)), now
    )


def full_server(origin_port: int) -> AdsServer:
    server = AdsServer(token="secret")
    server.put(CLUSTER, ORIGIN, eds_cluster(), "1")
    server.put(ENDPOINT, "o", endpoints(origin_port), "1")
    server.put(LISTENER, "l", http_listener(), "1")
    server.put(ROUTE, "r", routes(), "1")
    return server
