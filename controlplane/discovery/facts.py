"""What discovery needs to know of each object, as small frozen values.

API objects change often (heartbeats, annotations, managed fields); facts compare equal when nothing that matters to a
proxy has changed, so that nothing is rebuilt for nothing.
"""

import enum
from dataclasses import dataclass

from mesh.api.core import Service, ServicePort
from mesh.api.discovery import EndpointSlice
from mesh.api.pod import Pod
from mesh.api.resources import Json
from mesh.routing.table import Provenance
from policies.hosts import service_host
from policies.injection import STATUS_ANNOTATION, workload_name
from policies.provenance import provenance_of
from policies.values import UNKNOWN

Labels = tuple[tuple[str, str], ...]
"""Sorted."""
ObjectKey = tuple[str, str]
"""(namespace, name)."""


class Protocol(enum.Enum):
    """What a service port speaks."""

    HTTP = "http"
    TCP = "tcp"
    DETECT = "detect"
    """Not declared: HTTP if the first bytes are a request, else TCP."""


_DECLARED = {
    "http": Protocol.HTTP,
    "kubernetes.io/ws": Protocol.HTTP,
    "http2": Protocol.TCP,
    "h2c": Protocol.TCP,
    "kubernetes.io/h2c": Protocol.TCP,
    "grpc": Protocol.TCP,
    "grpc-web": Protocol.HTTP,
    "https": Protocol.TCP,
    "tls": Protocol.TCP,
    "tcp": Protocol.TCP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}
"""DEVIATION: HTTP/2 travels as TCP: balanced per connection, until the sidecar speaks it."""


def protocol_of(port: ServicePort) -> Protocol:
    """appProtocol, else the port name's prefix up to the first dash. Source: Istio, "Protocol Selection"."""
    if port.app_protocol:
        return _DECLARED.get(port.app_protocol.lower(), Protocol.TCP)
    name = port.name.lower()
    if name.startswith("grpc-web"):
        return Protocol.HTTP
    return _DECLARED.get(name.partition("-")[0], Protocol.DETECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """One TCP port of a Service."""

    number: int
    name: str
    protocol: Protocol
    target: int | str
    """A container's port number or its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """One Service."""

    namespace: str
    name: str
    host: str
    """Fully qualified."""
    cluster_ip: str
    """"" when it has none (headless, or not allocated yet)."""
    ports: tuple[PortFacts, ...]
    selector: Labels
    provenance: Provenance = UNKNOWN

    def port(self, number: int) -> PortFacts | None:
        """The port with this number."""
        return next((p for p in self.ports if p.number == number), None)

    def selects(self, labels: dict[str, str]) -> bool:
        """Whether a pod of its namespace with these labels is one of its own."""
        return bool(self.selector) and all(labels.get(key) == value for key, value in self.selector)


def service_facts(service: Service, domain: str) -> ServiceFacts | None:
    """None for services that proxies cannot route to (ExternalName, no TCP port)."""
    spec, meta = service.spec, service.metadata
    ports = tuple(
        PortFacts(number=p.port, name=p.name, protocol=protocol_of(p), target=p.effective_target_port)
        for p in spec.ports
        if p.protocol == "TCP"
    )
    if spec.type == "ExternalName" or not ports:
        return None
    return ServiceFacts(
        namespace=meta.namespace,
        name=meta.name,
        host=service_host(meta.name, meta.namespace, domain),
        cluster_ip="" if service.is_headless else spec.cluster_ip,
        ports=ports,
        selector=tuple(sorted(spec.selector.items())),
        provenance=provenance_of("Service", meta),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """One pod."""

    namespace: str
    name: str
    address: str
    labels: Labels
    workload: str
    node: str
    is_terminating: bool
    container_ports: tuple[tuple[str, int], ...]
    """(name, number) of every TCP container port."""
    service_account: str
    is_drained: bool
    """It has the condition meshwork.dev/Drained: True."""
    has_ready_sidecar: bool
    """It was injected and is ready: its proxy is connected, or will be when discovery has just started."""

    @property
    def key(self) -> ObjectKey:
        """(namespace, name)."""
        return self.namespace, self.name


DRAINED_CONDITION = "meshwork.dev/Drained"


def pod_facts(pod: Pod, obj: Json) -> PodFacts:
    """`obj` is the pod's JSON, from which the owner's name is derived as injection derives it."""
    spec, meta = pod.spec, pod.metadata
    containers = (*spec.init_containers, *spec.containers)
    return PodFacts(
        namespace=meta.namespace,
        name=meta.name,
        address=pod.status.pod_ip,
        labels=tuple(sorted(meta.labels.items())),
        workload=workload_name(obj),
        node=spec.node_name,
        is_terminating=meta.is_terminating or pod.is_finished,
        container_ports=tuple(
            (p.name, p.container_port) for c in containers for p in c.ports if p.protocol in ("TCP", "")
        ),
        service_account=spec.service_account_name or "default",
        is_drained=any(c.type == DRAINED_CONDITION and c.is_true for c in pod.status.conditions),
        has_ready_sidecar=(
            STATUS_ANNOTATION in meta.annotations
            and not meta.is_terminating
            and any(c.type == "Ready" and c.is_true for c in pod.status.conditions)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """One address of a Service that may take new traffic."""

    address: str
    ports: tuple[tuple[str, int], ...]
    """(name of the service port, number)."""
    pod: ObjectKey | None
    node: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFacts:
    """The usable endpoints of one EndpointSlice."""

    service: ObjectKey
    endpoints: tuple[EndpointFacts, ...]


def slice_facts(item: EndpointSlice) -> SliceFacts:
    """Only ready endpoints that are not on their way out."""
    namespace = item.metadata.namespace
    ports = tuple((p.name, p.port) for p in item.ports if p.protocol == "TCP")
    usable = [e for e in item.endpoints if e.is_ready and not e.is_terminating and e.addresses]
    return SliceFacts(
        service=(namespace, item.service_name),
        endpoints=tuple(
            EndpointFacts(
                address=e.addresses[0],
                ports=ports,
                pod=(e.target_ref.namespace or namespace, e.target_ref.name)
                if e.target_ref is not None and e.target_ref.kind == "Pod"
                else None,
                node=e.node_name,
                zone=e.zone,
            )
            for e in usable
        ),
    )
