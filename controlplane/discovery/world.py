"""The state that resources are built from: facts about services, endpoints and pods, and the policies as applied."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controlplane.discovery.facts import EndpointFacts, ObjectKey, PodFacts, ServiceFacts, SliceFacts
from controlplane.discovery.localities import NOWHERE, Locality
from mesh.api.gateway import HttpRoute
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.traffic_limit import TrafficLimit

_Policy = VirtualService | DestinationRule | HttpRoute | TrafficLimit


@dataclass(slots=True)
class Dirty:
    """What has changed since the last build."""

    is_structural: bool = False
    """Services, DestinationRules, TrafficLimits, nodes' places or pods' labels: anything may have to be built again."""
    has_new_routes: bool = False
    """VirtualServices or HTTPRoutes: only routes have to be built again."""
    endpoints_of: set[ObjectKey] = field(default_factory=set)
    """Services whose endpoints changed."""
    has_removals: bool = False
    """An endpoint has gone: publish at once."""

    def __bool__(self) -> bool:
        return self.is_structural or self.has_new_routes or bool(self.endpoints_of)

    @property
    def has_new_policies(self) -> bool:
        """Policies have to be compiled again: they, or what they refer to, changed."""
        return self.is_structural or self.has_new_routes


class World:
    """Changed by `put_*` and `remove_*`, each of which says in `dirty` what it touched; equal facts touch nothing."""

    def __init__(self, domain: str = "cluster.local") -> None:
        self.domain = domain
        self.services: dict[ObjectKey, ServiceFacts] = {}
        self.pods: dict[ObjectKey, PodFacts] = {}
        self.virtual_services: dict[ObjectKey, VirtualService] = {}
        self.destination_rules: dict[ObjectKey, DestinationRule] = {}
        self.http_routes: dict[ObjectKey, HttpRoute] = {}
        self.traffic_limits: dict[ObjectKey, TrafficLimit] = {}
        self.localities: dict[str, Locality] = {}
        """node -> where it is; nodes that do not tell are left out."""
        self.dirty = Dirty()
        self._slices: dict[ObjectKey, SliceFacts] = {}
        self._slices_of: dict[ObjectKey, set[ObjectKey]] = {}
        self._services_of_pod: dict[ObjectKey, set[ObjectKey]] = {}

    def take_dirty(self) -> Dirty:
        """What has changed since the last call."""
        dirty, self.dirty = self.dirty, Dirty()
        return dirty

    def put_service(self, key: ObjectKey, facts: ServiceFacts | None) -> None:
        """Add, replace or (None) remove a service."""
        if self.services.get(key) == facts:
            return
        if facts is None:
            del self.services[key]
        else:
            self.services[key] = facts
        self.dirty.is_structural = True
        self.dirty.endpoints_of.add(key)

    def put_slice(self, key: ObjectKey, facts: SliceFacts | None) -> None:
        """Add, replace or (None) remove an endpoint slice."""
        old = self._slices.get(key)
        if old == facts:
            return
        if old is not None:
            self._slices_of.get(old.service, set()).discard(key)
            self._touch(old.service)
        if facts is None:
            self._slices.pop(key, None)
        else:
            self._slices[key] = facts
            self._slices_of.setdefault(facts.service, set()).add(key)
            self._index_pods(facts)
            self._touch(facts.service)
        if old is not None and _loses_endpoints(old, facts):
            self.dirty.has_removals = True

    def _index_pods(self, facts: SliceFacts) -> None:
        for endpoint in facts.endpoints:
            if endpoint.pod is not None:
                self._services_of_pod.setdefault(endpoint.pod, set()).add(facts.service)

    def _touch(self, service: ObjectKey) -> None:
        self.dirty.endpoints_of.add(service)

    def put_pod(self, key: ObjectKey, facts: PodFacts | None) -> None:
        """Add, replace or (None) remove a pod. Only its labels, ports, node or its leaving touch anything."""
        old = self.pods.get(key)
        if old == facts:
            return
        if facts is None:
            del self.pods[key]
        else:
            self.pods[key] = facts
        is_leaving = old is not None and not old.is_terminating and (facts is None or facts.is_terminating)
        self.dirty.endpoints_of |= self._services_of_pod.get(key, set())
        self.dirty.has_removals |= is_leaving
        self.dirty.is_structural |= _scope_part(old) != _scope_part(facts)
        if facts is None:
            self._services_of_pod.pop(key, None)

    def put_node(self, name: str, locality: Locality | None) -> None:
        """Add, replace or (None) remove a node. Only its place touches anything."""
        new = locality or NOWHERE
        if self.localities.get(name, NOWHERE) == new:
            return
        if new == NOWHERE:
            del self.localities[name]
        else:
            self.localities[name] = new
        self.dirty.is_structural = True
        self.dirty.endpoints_of |= self.services.keys()

    def put_virtual_service(self, key: ObjectKey, policy: VirtualService | None) -> None:
        """Add, replace or (None) remove a VirtualService. Changes of the status touch nothing."""
        old = self.virtual_services.get(key)
        if policy is None:
            self.virtual_services.pop(key, None)
        else:
            self.virtual_services[key] = policy
        self.dirty.has_new_routes |= not _same_policy(old, policy)

    def put_http_route(self, key: ObjectKey, policy: HttpRoute | None) -> None:
        """Add, replace or (None) remove an HTTPRoute. Changes of the status touch nothing."""
        old = self.http_routes.get(key)
        if policy is None:
            self.http_routes.pop(key, None)
        else:
            self.http_routes[key] = policy
        self.dirty.has_new_routes |= not _same_policy(old, policy)

    def put_traffic_limit(self, key: ObjectKey, policy: TrafficLimit | None) -> None:
        """Add, replace or (None) remove a TrafficLimit. Changes of the status touch nothing."""
        old = self.traffic_limits.get(key)
        if policy is None:
            self.traffic_limits.pop(key, None)
        else:
            self.traffic_limits[key] = policy
        self.dirty.is_structural |= not _same_policy(old, policy)

    def put_destination_rule(self, key: ObjectKey, policy: DestinationRule | None) -> None:
        """Add, replace or (None) remove a DestinationRule. Changes of the status touch nothing."""
        old = self.destination_rules.get(key)
        if policy is None:
            self.destination_rules.pop(key, None)
        else:
            self.destination_rules[key] = policy
        self.dirty.is_structural |= not _same_policy(old, policy)

    def endpoints(self, service: ObjectKey) -> Iterator[tuple[EndpointFacts, PodFacts | None, Locality]]:
        """The service's usable endpoints with their pods and places, in no particular order; pods on their way out are left out."""
        for key in self._slices_of.get(service, ()):
            for endpoint in self._slices[key].endpoints:
                pod = self.pods.get(endpoint.pod) if endpoint.pod is not None else None
                if pod is None or not pod.is_terminating:
                    yield endpoint, pod, self._place_of(endpoint, pod)

    def _place_of(self, endpoint: EndpointFacts, pod: PodFacts | None) -> Locality:
        node = pod.node if pod is not None and pod.node else endpoint.node
        found = self.localities.get(node)
        if found is not None:
            return found
        return Locality(zone=endpoint.zone) if endpoint.zone else NOWHERE

    def services_by_namespace(self) -> Mapping[str, list[ServiceFacts]]:
        """Every service, grouped."""
        grouped: dict[str, list[ServiceFacts]] = {}
        for service in self.services.values():
            grouped.setdefault(service.namespace, []).append(service)
        return grouped


def _loses_endpoints(old: SliceFacts, new: SliceFacts | None) -> bool:
    kept = {endpoint.address for endpoint in new.endpoints} if new is not None else set()
    return any(endpoint.address not in kept for endpoint in old.endpoints)


def _scope_part(pod: PodFacts | None) -> object:
    """What of a pod decides about its own proxy's configuration."""
    return (pod.labels, pod.container_ports) if pod is not None else None


def _same_policy(old: _Policy | None, new: _Policy | None) -> bool:
    if old is None or new is None:
        return old is new
    same_meta = (
        old.metadata.generation == new.metadata.generation
        and old.metadata.uid == new.metadata.uid
        and old.metadata.annotations == new.metadata.annotations
    )
    return same_meta and old.spec == new.spec
