"""Endpoints and pods -> one ClusterLoadAssignment per cluster. Pure."""

from collections.abc import Iterable, Sequence

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from controlplane.discovery.build_clusters import outbound_name, socket_address, uint32
from controlplane.discovery.facts import EndpointFacts, Labels, ObjectKey, PodFacts, PortFacts, ServiceFacts
from controlplane.discovery.metadata import workload_metadata
from controlplane.discovery.resources import EDS, Resource, resource_of
from policies.values import CompiledDestinationRule

Located = tuple[EndpointFacts, PodFacts | None]


def service_endpoints(
    service: ServiceFacts, rule: CompiledDestinationRule | None, endpoints: Iterable[Located]
) -> dict[str, Resource]:
    """One assignment per cluster of the service; empty ones too, so that a cluster without endpoints is known to be so."""
    located = sorted(endpoints, key=lambda item: (item[0].address, item[0].ports))
    assignments: dict[str, Resource] = {}
    for port in service.ports:
        _add(assignments, outbound_name(service.host, port.number), port, located)
        for subset in rule.subsets.values() if rule else ():
            chosen = [item for item in located if _has_labels(item[1], subset.labels)]
            _add(assignments, outbound_name(service.host, port.number, subset.name), port, chosen)
    return assignments


def pods_of(endpoints: Iterable[Located]) -> frozenset[ObjectKey]:
    """The pods behind these endpoints."""
    return frozenset(pod.key for _, pod in endpoints if pod is not None)


def _has_labels(pod: PodFacts | None, labels: Labels) -> bool:
    if pod is None:
        return not labels
    own = dict(pod.labels)
    return all(own.get(key) == value for key, value in labels)


def _add(assignments: dict[str, Resource], name: str, port: PortFacts, located: Sequence[Located]) -> None:
    by_zone: dict[str, list[object]] = {}
    seen: set[tuple[str, int]] = set()
    for endpoint, pod in located:
        number = dict(endpoint.ports).get(port.name, 0)
        if not number or (endpoint.address, number) in seen:
            continue
        seen.add((endpoint.address, number))
        by_zone.setdefault(endpoint.zone, []).append(
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(address=socket_address(endpoint.address, number)),
                metadata=workload_metadata(endpoint, pod),
                load_balancing_weight=uint32(1),
            )
        )
    groups = [
        endpoint_components_pb2.LocalityLbEndpoints(
            # grpcio refuses a group without a locality or without a weight.
            locality=base_pb2.Locality(region="mesh", zone=zone),
            lb_endpoints=members,
            load_balancing_weight=uint32(len(members)),
        )
        for zone, members in sorted(by_zone.items())
    ]
    assignments[name] = resource_of(EDS, name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=groups))
