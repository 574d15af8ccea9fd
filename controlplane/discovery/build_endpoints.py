"""Endpoints and pods -> one ClusterLoadAssignment per cluster. Pure."""

from collections.abc import Iterable, Sequence

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from controlplane.discovery.build_clusters import outbound_name
from controlplane.discovery.facts import EndpointFacts, Labels, ObjectKey, PodFacts, PortFacts, ServiceFacts
from controlplane.discovery.localities import ANYWHERE, UNKNOWN_REGION, Group, Locality, Member, Place, arrange
from controlplane.discovery.messages import socket_address, uint32
from controlplane.discovery.metadata import workload_metadata
from controlplane.discovery.resources import EDS, Resource, resource_of
from policies.traffic import DEFAULT_SETTINGS, CompiledDestinationRule

Located = tuple[EndpointFacts, PodFacts | None, Locality]


def service_endpoints(
    service: ServiceFacts, rule: CompiledDestinationRule | None, endpoints: Iterable[Located], place: Place = ANYWHERE
) -> dict[str, Resource]:
    """One assignment per cluster of the service; empty ones too, so that a cluster without endpoints is known to be so.

    `place` is that of the clients; it only matters where the rule says so.
    """
    located = sorted(endpoints, key=lambda item: (item[0].address, item[0].ports))
    assignments: dict[str, Resource] = {}
    for port in service.ports:
        for subset in ("", *(rule.subsets if rule else ())):
            settings = rule.cluster_settings(subset, port.number) if rule else DEFAULT_SETTINGS
            labels = rule.subsets[subset].labels if rule and subset else ()
            chosen = [item for item in located if _has_labels(item[1], labels)] if subset else located
            groups = arrange(_members(port, chosen), settings.active_locality, place)
            name = outbound_name(service.host, port.number, subset)
            assignments[name] = _assignment(name, groups)
    return assignments


def pods_of(endpoints: Iterable[Located]) -> frozenset[ObjectKey]:
    """The pods behind these endpoints."""
    return frozenset(pod.key for _, pod, _ in endpoints if pod is not None)


def _has_labels(pod: PodFacts | None, labels: Labels) -> bool:
    if pod is None:
        return not labels
    own = dict(pod.labels)
    return all(own.get(key) == value for key, value in labels)


def _members(port: PortFacts, located: Sequence[Located]) -> list[Member]:
    members: list[Member] = []
    seen: set[tuple[str, int]] = set()
    for endpoint, pod, locality in located:
        number = dict(endpoint.ports).get(port.name, 0)
        if not number or (endpoint.address, number) in seen:
            continue
        seen.add((endpoint.address, number))
        built = endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=socket_address(endpoint.address, number)),
            metadata=workload_metadata(endpoint, pod),
            load_balancing_weight=uint32(1),
        )
        members.append(Member(built, locality, dict(pod.labels) if pod is not None else {}))
    return members


def _assignment(name: str, groups: Iterable[Group]) -> Resource:
    built = [
        endpoint_components_pb2.LocalityLbEndpoints(
            # grpcio refuses a group without a locality or without a weight.
            locality=base_pb2.Locality(
                region=group.locality.region or UNKNOWN_REGION,
                zone=group.locality.zone,
                sub_zone=group.locality.subzone,
            ),
            lb_endpoints=[member.endpoint for member in group.members],
            load_balancing_weight=uint32(group.weight),
            priority=group.priority,
        )
        for group in groups
    ]
    return resource_of(EDS, name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=built))
