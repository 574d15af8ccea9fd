"""The assignments of every service, built when its endpoints or its rule change, and kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.discovery import build_endpoints
from controlplane.discovery.facts import ObjectKey, ServiceFacts
from controlplane.discovery.localities import Place
from controlplane.discovery.resources import Resource
from controlplane.discovery.world import World
from policies.traffic import CompiledDestinationRule

Rules = Mapping[str, CompiledDestinationRule]
"""host -> the rule that some clients use for it."""
_Variant = tuple[ObjectKey, str, Place | None]
"""(service, key of its rule or "", the clients' place where it matters)."""


@dataclass(slots=True)
class _Assignments:
    """The endpoint tables of one service under one DestinationRule."""

    rule: CompiledDestinationRule | None
    table: Mapping[str, Resource]


class EndpointTables:
    """Not thread-safe; never awaits."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._assignments: dict[_Variant, _Assignments] = {}
        self._pods: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self.builds = 0
        """How often the tables of a service were built."""

    def pods(self) -> frozenset[ObjectKey]:
        """The pods that are an endpoint of something."""
        return frozenset().union(*self._pods.values()) if self._pods else frozenset()

    def refresh(self, changed: Iterable[ObjectKey], clients: Iterable[tuple[Rules, Place]]) -> None:
        """Forget what is built from the endpoints of `changed` services, and what none of `clients` uses any more."""
        services = self._world.services
        for key in changed:
            self._pods.pop(key, None)
            for variant in [v for v in self._assignments if v[0] == key]:
                del self._assignments[variant]
        used: set[_Variant] = set()
        for rules, place in clients:
            used |= {_variant(service, rules.get(service.host), place) for service in services.values()}
        for unused in self._assignments.keys() - used:
            del self._assignments[unused]
        for key in services:
            if key not in self._pods:
                self._pods[key] = build_endpoints.pods_of(self._world.endpoints(key))
        for gone in self._pods.keys() - services.keys():
            del self._pods[gone]

    def of(self, service: ServiceFacts, rule: CompiledDestinationRule | None, place: Place) -> Mapping[str, Resource]:
        """The assignments of one service for clients of `place`."""
        key = _variant(service, rule, place)
        known = self._assignments.get(key)
        if known is None or known.rule != rule:
            endpoints = self._world.endpoints(key[0])
            known = _Assignments(rule, build_endpoints.service_endpoints(service, rule, endpoints, place))
            self._assignments[key] = known
            self.builds += 1
        return known.table


def _variant(service: ServiceFacts, rule: CompiledDestinationRule | None, place: Place) -> _Variant:
    if rule is None:
        return (service.namespace, service.name), "", None
    return (service.namespace, service.name), rule.key, place if rule.asks_for_place else None
