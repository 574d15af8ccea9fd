"""Which policies are in force: compiled, the last good version kept when a new one is wrong, conflicts decided."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.discovery.facts import ObjectKey, ServiceFacts
from controlplane.discovery.service_routes import join_routes, verdict_of
from controlplane.discovery.verdicts import ParentVerdict, PolicyId, Verdict, object_name, overlap
from mesh.api.gateway import HttpRoute
from mesh.api.meta import ObjectView
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.resources import DESTINATION_RULES, HTTP_ROUTES, TRAFFIC_LIMITS, VIRTUAL_SERVICES, Resource
from mesh.api.traffic_limit import TrafficLimit
from policies.destination_rule import compile_destination_rule
from policies.errors import Problems
from policies.http_route import compile_http_route
from policies.http_route_values import CompiledHttpRoute
from policies.registry import Registry
from policies.traffic import CompiledDestinationRule
from policies.traffic_limit import CompiledTrafficLimit, compile_traffic_limit
from policies.values import CompiledVirtualService
from policies.virtual_service import compile_virtual_service

Owner = TypeVar("Owner", CompiledVirtualService, CompiledDestinationRule)
Compiled = TypeVar("Compiled", CompiledVirtualService, CompiledDestinationRule, CompiledHttpRoute, CompiledTrafficLimit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policy objects as applied."""

    virtual_services: Mapping[ObjectKey, VirtualService] = field(default_factory=dict)
    destination_rules: Mapping[ObjectKey, DestinationRule] = field(default_factory=dict)
    http_routes: Mapping[ObjectKey, HttpRoute] = field(default_factory=dict)
    traffic_limits: Mapping[ObjectKey, TrafficLimit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesInForce:
    """The compiled policies to build from, and the verdict on each object."""

    virtual_services: tuple[CompiledVirtualService, ...] = ()
    """No two for one host are visible in the same namespace."""
    destination_rules: Mapping[str, tuple[CompiledDestinationRule, ...]] = field(default_factory=dict)
    """host -> rules; no two are visible in the same namespace."""
    traffic_limits: tuple[CompiledTrafficLimit, ...] = ()
    """The oldest first: of two for one port of a pod it counts."""
    verdicts: Mapping[PolicyId, Verdict] = field(default_factory=dict)
    asked_place: frozenset[str] | None = None
    """Labels of clients that decide about localities; None when no rule asks where a client is."""

    def rule_for(self, host: str, namespace: str) -> CompiledDestinationRule | None:
        """The DestinationRule that proxies of `namespace` use for `host`."""
        rules = self.destination_rules.get(host, ())
        return next((rule for rule in rules if rule.visibility.includes(namespace)), None)

    def routes_by_host(self, namespace: str) -> dict[str, CompiledVirtualService]:
        """host -> the VirtualService that proxies of `namespace` route it by."""
        return {
            host: service
            for service in self.virtual_services
            if service.visibility.includes(namespace)
            for host in service.hosts
        }


@dataclass(slots=True)
class _Shelf(Generic[Compiled]):
    """The last good version of every policy of one kind."""

    resource: Resource
    good: dict[ObjectKey, Compiled] = field(default_factory=dict)

    def settle(
        self, results: Mapping[ObjectKey, Compiled | Problems], generations: Mapping[ObjectKey, int]
    ) -> "_Settled[Compiled]":
        """Keep what compiled, and fall back to the last good version of what did not."""
        settled: _Settled[Compiled] = _Settled(self.resource)
        for key, result in results.items():
            verdict_key = PolicyId(self.resource, *key)
            if isinstance(result, Problems):
                last = self.good.get(key)
                settled.verdicts[verdict_key] = _invalid(generations[key], result, last.generation if last else None)
                if last is not None:
                    settled.candidates[key] = last
            else:
                settled.candidates[key] = self.good[key] = result
                settled.verdicts[verdict_key] = Verdict(
                    generation=result.generation, is_accepted=True, reason="Accepted", message=""
                )
        for gone in self.good.keys() - results.keys():
            del self.good[gone]
        return settled


@dataclass(slots=True)
class _Settled(Generic[Compiled]):
    resource: Resource
    candidates: dict[ObjectKey, Compiled] = field(default_factory=dict)
    verdicts: dict[PolicyId, Verdict] = field(default_factory=dict)


def _without_rivals(settled: _Settled[Owner], generations: Mapping[ObjectKey, int]) -> list[Owner]:
    """Refuse the younger of two policies for one host."""
    kept: list[Owner] = []
    owners: dict[str, list[Owner]] = {}
    for key, policy in sorted(settled.candidates.items(), key=lambda item: (item[1].created, item[0])):
        rival = _rival(policy, owners)
        if rival is not None:
            host, other = rival
            message = f'host "{host}" already belongs to {object_name(other.provenance)}, which is older: merge the two, or remove one'
            settled.verdicts[PolicyId(settled.resource, *key)] = Verdict(
                generation=generations[key], is_accepted=False, reason="Conflict", message=message
            )
            continue
        kept.append(policy)
        for host in _hosts(policy):
            owners.setdefault(host, []).append(policy)
    return kept


class PolicyBook:
    """Compiles policies against the services that exist. Keeps the last good versions between calls."""

    def __init__(self) -> None:
        self._virtual_services: _Shelf[CompiledVirtualService] = _Shelf(VIRTUAL_SERVICES)
        self._destination_rules: _Shelf[CompiledDestinationRule] = _Shelf(DESTINATION_RULES)
        self._http_routes: _Shelf[CompiledHttpRoute] = _Shelf(HTTP_ROUTES)
        self._traffic_limits: _Shelf[CompiledTrafficLimit] = _Shelf(TRAFFIC_LIMITS)

    def settle(self, policies: Policies, services: Iterable[ServiceFacts], domain: str) -> PoliciesInForce:
        """The policies in force now. Cost: every policy is compiled (about 50 us each)."""
        ports = {service.host: frozenset(p.number for p in service.ports) for service in services}
        registry = Registry(ports=ports, domain=domain)
        generations = _generations(policies.destination_rules)
        settled = self._destination_rules.settle(
            {key: compile_destination_rule(rule, registry) for key, rule in policies.destination_rules.items()},
            generations,
        )
        rules = _without_rivals(settled, generations)
        by_host: dict[str, tuple[CompiledDestinationRule, ...]] = {}
        for rule in rules:
            by_host[rule.host] = (*by_host.get(rule.host, ()), rule)
        subsets = {host: frozenset(name for rule in group for name in rule.subsets) for host, group in by_host.items()}
        registry = Registry(ports=ports, subsets=subsets, domain=domain)
        services_in_force, route_verdicts = self._routes(policies, registry)
        limits = self._traffic_limits.settle(
            {key: compile_traffic_limit(item) for key, item in policies.traffic_limits.items()},
            _generations(policies.traffic_limits),
        )
        return PoliciesInForce(
            virtual_services=services_in_force,
            destination_rules=by_host,
            traffic_limits=_visible_limits(limits, _generations(policies.traffic_limits)),
            verdicts={**settled.verdicts, **route_verdicts, **limits.verdicts},
            asked_place=_asked_place(rules),
        )

    def _routes(
        self, policies: Policies, registry: Registry
    ) -> tuple[tuple[CompiledVirtualService, ...], dict[PolicyId, Verdict]]:
        """VirtualServices, then the HTTPRoutes of Services that none of them routes."""
        generations = _generations(policies.virtual_services)
        settled = self._virtual_services.settle(
            {key: compile_virtual_service(item, registry) for key, item in policies.virtual_services.items()},
            generations,
        )
        kept = [item for item in _without_rivals(settled, generations) if item.is_for_sidecars]
        routes = self._http_routes.settle(
            {key: compile_http_route(item, registry) for key, item in policies.http_routes.items()},
            _generations(policies.http_routes),
        )
        joined, verdicts = join_routes(routes.candidates.values(), kept, registry.ports)
        told = {
            policy: told
            for policy, verdict in routes.verdicts.items()
            if (told := _route_verdict(verdict, policies.http_routes[policy.namespace, policy.name], verdicts))
            is not None
        }
        return (*kept, *joined), {**settled.verdicts, **told}


def _visible_limits(
    settled: _Settled[CompiledTrafficLimit], generations: Mapping[ObjectKey, int]
) -> tuple[CompiledTrafficLimit, ...]:
    """The oldest first; refuse those that older ones hide everywhere."""
    kept: list[CompiledTrafficLimit] = []
    for key, limit in sorted(settled.candidates.items(), key=lambda item: (item[1].created, item[0])):
        older = next((other for other in kept if other.hides(limit)), None)
        if older is None:
            kept.append(limit)
            continue
        message = f"{object_name(older.provenance)} is older and limits the same pods: merge the two, or remove one"
        settled.verdicts[PolicyId(settled.resource, *key)] = Verdict(
            generation=generations[key], is_accepted=False, reason="Conflict", message=message
        )
    return tuple(kept)


def _route_verdict(own: Verdict, route: HttpRoute, joined: Mapping[str, Verdict]) -> Verdict | None:
    """Per parent; None for a route without Services as parents, which is somebody else's matter."""
    if own.is_accepted:
        return joined.get(route.key)
    refs = [ref for ref in route.spec.parent_refs if ref.is_service]
    parents = [ParentVerdict(ref=ref, is_accepted=False, reason=own.reason, message=own.message) for ref in refs]
    return verdict_of(own.generation, parents) if parents else None


def _generations(objects: Mapping[ObjectKey, ObjectView]) -> dict[ObjectKey, int]:
    return {key: item.metadata.generation for key, item in objects.items()}


def _asked_place(rules: Iterable[CompiledDestinationRule]) -> frozenset[str] | None:
    asking = [
        settings.active_locality
        for rule in rules
        for settings in rule.all_settings()
        if settings.active_locality is not None
    ]
    if not asking:
        return None
    return frozenset(key for locality in asking for key, value in locality.priority_labels if not value)


def _invalid(generation: int, problems: Problems, last: int | None) -> Verdict:
    kept = f" Generation {last} stays in force." if last is not None else " The policy is not in force."
    return Verdict(generation=generation, is_accepted=False, reason="Invalid", message=f"{problems}.{kept}")


def _hosts(policy: CompiledVirtualService | CompiledDestinationRule) -> tuple[str, ...]:
    if isinstance(policy, CompiledDestinationRule):
        return (policy.host,)
    return policy.hosts if policy.is_for_sidecars else ()


def _rival(policy: Owner, owners: Mapping[str, list[Owner]]) -> tuple[str, Owner] | None:
    for host in _hosts(policy):
        for other in owners.get(host, ()):
            if overlap(policy.visibility, other.visibility):
                return host, other
    return None
