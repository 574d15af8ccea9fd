"""Services and DestinationRules -> clusters. Pure."""

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2

from controlplane.discovery.build_cluster_settings import PROTOCOL_OPTIONS, apply_settings
from controlplane.discovery.config import MeshSettings
from controlplane.discovery.facts import PortFacts, Protocol, ServiceFacts
from controlplane.discovery.messages import ads_source, duration, socket_address
from controlplane.discovery.metadata import provenance_metadata
from controlplane.discovery.resources import CDS, Resource, resource_of
from mesh.routing.table import Provenance
from policies.traffic import DEFAULT_SETTINGS, CompiledDestinationRule, TrafficSettings

PASSTHROUGH = "PassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"
TRACES = "mesh-traces"


def outbound_name(host: str, port: int, subset: str = "") -> str:
    """`outbound|PORT|SUBSET|HOST`."""
    return f"outbound|{port}|{subset}|{host}"


def inbound_name(port: int) -> str:
    """`inbound|PORT||`."""
    return f"inbound|{port}||"


def service_clusters(service: ServiceFacts, rule: CompiledDestinationRule | None) -> dict[str, Resource]:
    """One cluster per port, and one more per port and subset."""
    clusters: dict[str, Resource] = {}
    for port in service.ports:
        settings = rule.settings_for(port.number) if rule else DEFAULT_SETTINGS
        provenance = rule.provenance if rule else service.provenance
        _add(clusters, outbound_name(service.host, port.number), port, settings, provenance)
        for subset in rule.subsets.values() if rule else ():
            name = outbound_name(service.host, port.number, subset.name)
            _add(clusters, name, port, subset.settings_for(port.number), subset.provenance)
    return clusters


def _add(
    clusters: dict[str, Resource], name: str, port: PortFacts, settings: TrafficSettings, provenance: Provenance
) -> None:
    extra = {"lb": "PEAK_EWMA"} if settings.uses_peak_ewma else {}
    cluster = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads_source()),
        metadata=provenance_metadata(provenance, **extra),
    )
    apply_settings(cluster, settings, is_http=port.protocol is not Protocol.TCP)
    clusters[name] = resource_of(CDS, name, cluster)


def inbound_cluster(port: int) -> Resource:
    """The app's own port, on the pod's loopback."""
    name = inbound_name(port)
    cluster = _static_cluster(name, "127.0.0.1", port)
    cluster.connect_timeout.CopyFrom(duration(5.0))
    return resource_of(CDS, name, cluster)


def fixed_clusters(settings: MeshSettings) -> dict[str, Resource]:
    """The clusters every proxy has: the original destination, nowhere, and the trace collector."""
    passthrough = cluster_pb2.Cluster(
        name=PASSTHROUGH,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(10.0),
    )
    black_hole = cluster_pb2.Cluster(name=BLACK_HOLE, type=cluster_pb2.Cluster.STATIC, connect_timeout=duration(1.0))
    traces = _static_cluster(TRACES, settings.traces_address, settings.traces_port)
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.CopyFrom(protocol_pb2.Http2ProtocolOptions())
    packed = any_pb2.Any()
    packed.Pack(options)
    traces.typed_extension_protocol_options[PROTOCOL_OPTIONS].CopyFrom(packed)
    return {cluster.name: resource_of(CDS, cluster.name, cluster) for cluster in (passthrough, black_hole, traces)}


def _static_cluster(name: str, address: str, port: int) -> Any:
    endpoint = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=socket_address(address, port))
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=duration(5.0),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )
