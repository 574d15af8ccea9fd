"""Typed views of the core group other than pods: Node, Service, Endpoints, ConfigMap, Secret, Namespace, and so on.

`Pod` and its parts live in `mesh.api.pod`; the names are imported here too, since they are one API group.
"""

import base64
from collections.abc import Mapping

import msgspec

from mesh.api.meta import Condition, IntOrString, LocalObjectReference, ObjectReference, ObjectView, Quantity, View
from mesh.api.pod import (
    Affinity,
    Container,
    ContainerPort,
    ContainerState,
    ContainerStatus,
    EnvVar,
    Pod,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
    Probe,
    Toleration,
    Volume,
    VolumeMount,
)

__all__ = [
    "Affinity",
    "ConfigMap",
    "Container",
    "ContainerPort",
    "ContainerState",
    "ContainerStatus",
    "Endpoints",
    "EnvVar",
    "Event",
    "Namespace",
    "Node",
    "Pod",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "Probe",
    "ReplicationController",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServicePort",
    "Taint",
    "Toleration",
    "Volume",
    "VolumeMount",
]


class Taint(View, frozen=True, kw_only=True):
    """Keeps pods without a matching toleration off a node."""

    key: str = ""
    value: str = ""
    effect: str = ""
    """NoSchedule, PreferNoSchedule or NoExecute."""
    time_added: str = ""


class NodeSpec(View, frozen=True, kw_only=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: tuple[str, ...] = msgspec.field(name="podCIDRs", default=())
    provider_id: str = msgspec.field(name="providerID", default="")
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(View, frozen=True, kw_only=True):
    type: str = ""
    """InternalIP, ExternalIP or Hostname."""
    address: str = ""


class NodeStatus(View, frozen=True, kw_only=True):
    capacity: Mapping[str, Quantity] = {}
    allocatable: Mapping[str, Quantity] = {}
    """What pods may request: cpu, memory, pods, ephemeral-storage."""
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()


class Node(ObjectView, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def is_ready(self) -> bool:
        """The Ready condition is True."""
        return any(c.type == "Ready" and c.is_true for c in self.status.conditions)

    @property
    def internal_ip(self) -> str:
        """The first InternalIP, or ""."""
        return next((a.address for a in self.status.addresses if a.type == "InternalIP"), "")


class ServicePort(View, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""
    port: int = 0
    target_port: IntOrString = 0
    """A number or the name of a container port; 0 (absent) means `port`."""
    node_port: int = 0

    @property
    def effective_target_port(self) -> IntOrString:
        """target_port, or port when there is none."""
        return self.target_port or self.port


class ServiceSpec(View, frozen=True, kw_only=True):
    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[str, str] = {}
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    """An address, "None" for a headless service, or "" before allocation."""
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    external_name: str = ""
    type: str = "ClusterIP"
    session_affinity: str = "None"
    publish_not_ready_addresses: bool = False
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = ""
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""


class LoadBalancerIngress(View, frozen=True, kw_only=True):
    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(View, frozen=True, kw_only=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(View, frozen=True, kw_only=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(ObjectView, frozen=True, kw_only=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def is_headless(self) -> bool:
        """clusterIP is "None": clients see the pods' addresses."""
        return self.spec.cluster_ip == "None"


class EndpointAddress(View, frozen=True, kw_only=True):
    ip: str = ""
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None


class EndpointPort(View, frozen=True, kw_only=True):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSubset(View, frozen=True, kw_only=True):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(ObjectView, frozen=True, kw_only=True):
    subsets: tuple[EndpointSubset, ...] = ()


class ConfigMap(ObjectView, frozen=True, kw_only=True):
    data: Mapping[str, str] = {}
    binary_data: Mapping[str, str] = {}
    """Base64 texts."""
    immutable: bool = False

    def files(self) -> dict[str, bytes]:
        """Every key's content as bytes."""
        return {k: v.encode() for k, v in self.data.items()} | {
            k: base64.b64decode(v) for k, v in self.binary_data.items()
        }


class Secret(ObjectView, frozen=True, kw_only=True):
    data: Mapping[str, str] = {}
    """Base64 texts. stringData never comes back from the server."""
    type: str = "Opaque"
    immutable: bool = False

    def files(self) -> dict[str, bytes]:
        """Every key's content as bytes."""
        return {k: base64.b64decode(v) for k, v in self.data.items()}


class NamespaceSpec(View, frozen=True, kw_only=True):
    finalizers: tuple[str, ...] = ()


class NamespaceStatus(View, frozen=True, kw_only=True):
    phase: str = "Active"
    """Active or Terminating."""
    conditions: tuple[Condition, ...] = ()


class Namespace(ObjectView, frozen=True, kw_only=True):
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class ServiceAccount(ObjectView, frozen=True, kw_only=True):
    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None


class EventSource(View, frozen=True, kw_only=True):
    component: str = ""
    host: str = ""


class Event(ObjectView, frozen=True, kw_only=True):
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    """Normal or Warning."""
    count: int = 0
    first_timestamp: str = ""
    last_timestamp: str = ""
    event_time: str = ""
    source: EventSource = EventSource()
    action: str = ""
    reporting_component: str = ""
    reporting_instance: str = ""


class ReplicationControllerSpec(View, frozen=True, kw_only=True):
    replicas: int = 1
    min_ready_seconds: int = 0
    selector: Mapping[str, str] = {}
    template: PodTemplateSpec | None = None


class ReplicationControllerStatus(View, frozen=True, kw_only=True):
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class ReplicationController(ObjectView, frozen=True, kw_only=True):
    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: ReplicationControllerStatus = ReplicationControllerStatus()
