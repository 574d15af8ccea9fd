"""Which addresses a Service has, from its selector and the pods. Pure.

Source: Kubernetes documentation, "EndpointSlices" (conditions) and "Services" (named ports, publishNotReadyAddresses).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.api.core import Service, ServicePort
from mesh.api.pod import Pod
from mesh.api.resources import Json

PortKey = tuple[tuple[str, str, int, str], ...]
"""The ports of one slice: (name, protocol, port, appProtocol), sorted. Pods that resolve a named port differently differ here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEndpoint:
    """One pod behind a Service."""

    address: str
    name: str
    namespace: str
    uid: str
    node_name: str
    hostname: str
    """Only when the pod's subdomain is the Service: it then has a DNS name of its own."""
    is_ready: bool
    """May take new traffic: ready and not terminating, or the Service publishes all."""
    is_serving: bool
    """The pod's own readiness, terminating or not."""
    is_terminating: bool

    def to_json(self) -> Json:
        """As an entry of EndpointSlice.endpoints."""
        result: Json = {
            "addresses": [self.address],
            "conditions": {"ready": self.is_ready, "serving": self.is_serving, "terminating": self.is_terminating},
            "targetRef": self.target_ref(),
        }
        if self.node_name:
            result["nodeName"] = self.node_name
        if self.hostname:
            result["hostname"] = self.hostname
        return result

    def target_ref(self) -> Json:
        """The pod, as a reference."""
        return {"kind": "Pod", "namespace": self.namespace, "name": self.name, "uid": self.uid}


def endpoints_of(service: Service, pods: Iterable[Pod]) -> dict[PortKey, list[PodEndpoint]]:
    """The endpoints of the selected `pods`, grouped by the ports they resolve to, ordered by pod name.

    Pods without an address and finished ones are left out; so is a pod for which no port of the Service resolves.
    """
    result: dict[PortKey, list[PodEndpoint]] = {}
    for pod in sorted(pods, key=lambda pod: pod.metadata.name):
        if not pod.status.pod_ip or pod.is_finished:
            continue
        ports = resolve_ports(service, pod)
        if ports is not None:
            result.setdefault(ports, []).append(_endpoint(service, pod))
    return result


def resolve_ports(service: Service, pod: Pod) -> PortKey | None:
    """The Service's ports as this pod serves them; None when it has none of them. A headless Service may have no ports."""
    if not service.spec.ports:
        return () if service.is_headless else None
    resolved = []
    for port in service.spec.ports:
        number = _target(port, pod)
        if number is not None:
            resolved.append((port.name, port.protocol, number, port.app_protocol))
    return tuple(sorted(resolved)) or None


def _target(port: ServicePort, pod: Pod) -> int | None:
    target = port.effective_target_port
    if isinstance(target, int):
        return target
    if target.isdecimal():
        return int(target)
    sidecars = [container for container in pod.spec.init_containers if container.is_sidecar]
    for container in (*pod.spec.containers, *sidecars):
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return None


def _endpoint(service: Service, pod: Pod) -> PodEndpoint:
    is_terminating = pod.metadata.is_terminating
    publishes_all = service.spec.publish_not_ready_addresses
    has_own_name = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    return PodEndpoint(
        address=pod.status.pod_ip,
        name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        uid=pod.metadata.uid,
        node_name=pod.spec.node_name,
        hostname=pod.spec.hostname if has_own_name else "",
        is_ready=publishes_all or (pod.is_ready and not is_terminating),
        is_serving=pod.is_ready,
        is_terminating=is_terminating,
    )


def legacy_subsets(groups: Mapping[PortKey, Sequence[PodEndpoint]], limit: int = 1000) -> list[Json]:
    """The same as subsets of the older Endpoints kind: terminating pods left out, at most `limit` addresses in all."""
    subsets: list[Json] = []
    room = limit
    for ports, members in sorted(groups.items()):
        ready = [_address(m) for m in members if m.is_ready][:room]
        room -= len(ready)
        not_ready = [_address(m) for m in members if not m.is_ready and not m.is_terminating][:room]
        room -= len(not_ready)
        if not ready and not not_ready:
            continue
        subset: Json = {}
        if ready:
            subset["addresses"] = ready
        if not_ready:
            subset["notReadyAddresses"] = not_ready
        if ports:
            subset["ports"] = port_list(ports)
        subsets.append(subset)
    return subsets


def port_list(ports: PortKey) -> list[Json]:
    """The ports as JSON, for either kind."""
    return [
        {
            **({"name": name} if name else {}),
            "protocol": protocol,
            "port": number,
            **({"appProtocol": app_protocol} if app_protocol else {}),
        }
        for name, protocol, number, app_protocol in ports
    ]


def _address(endpoint: PodEndpoint) -> Json:
    result: Json = {"ip": endpoint.address, "targetRef": endpoint.target_ref()}
    if endpoint.node_name:
        result["nodeName"] = endpoint.node_name
    if endpoint.hostname:
        result["hostname"] = endpoint.hostname
    return result
