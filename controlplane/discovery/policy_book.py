"""Which policies are in force: compiled, the last good version kept when a new one is wrong, conflicts decided."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.discovery.facts import ObjectKey, ServiceFacts
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.resources import DESTINATION_RULES, VIRTUAL_SERVICES, Resource
from mesh.routing.table import Provenance
from policies.destination_rule import compile_destination_rule
from policies.errors import Problems
from policies.registry import Registry
from policies.traffic import CompiledDestinationRule
from policies.values import CompiledVirtualService, Visibility
from policies.virtual_service import compile_virtual_service

Compiled = TypeVar("Compiled", CompiledVirtualService, CompiledDestinationRule)


@dataclass(frozen=True, slots=True)
class PolicyId:
    """One policy object."""

    resource: Resource
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What discovery makes of one generation of a policy."""

    generation: int
    is_accepted: bool
    reason: str
    """A CamelCase word for the condition."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesInForce:
    """The compiled policies to build from, and the verdict on each object."""

    virtual_services: tuple[CompiledVirtualService, ...] = ()
    """No two for one host are visible in the same namespace."""
    destination_rules: Mapping[str, tuple[CompiledDestinationRule, ...]] = field(default_factory=dict)
    """host -> rules; no two are visible in the same namespace."""
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
        """Keep what compiled, fall back to the last good version of what did not, and refuse the younger of two rivals."""
        verdicts: dict[PolicyId, Verdict] = {}
        candidates: dict[ObjectKey, Compiled] = {}
        for key, result in results.items():
            verdict_key = PolicyId(self.resource, *key)
            if isinstance(result, Problems):
                last = self.good.get(key)
                verdicts[verdict_key] = _invalid(generations[key], result, last.generation if last else None)
                if last is not None:
                    candidates[key] = last
            else:
                candidates[key] = self.good[key] = result
                verdicts[verdict_key] = Verdict(
                    generation=result.generation, is_accepted=True, reason="Accepted", message=""
                )
        for gone in self.good.keys() - results.keys():
            del self.good[gone]
        in_force = self._without_rivals(candidates, generations, verdicts)
        return _Settled(in_force, verdicts)

    def _without_rivals(
        self,
        candidates: Mapping[ObjectKey, Compiled],
        generations: Mapping[ObjectKey, int],
        verdicts: dict[PolicyId, Verdict],
    ) -> list[Compiled]:
        kept: list[Compiled] = []
        owners: dict[str, list[Compiled]] = {}
        for key, policy in sorted(candidates.items(), key=lambda item: (item[1].created, item[0])):
            rival = _rival(policy, owners)
            if rival is not None:
                host, other = rival
                message = f'host "{host}" already belongs to {_object(other.provenance)}, which is older: merge the two, or remove one'
                verdicts[PolicyId(self.resource, *key)] = Verdict(
                    generation=generations[key], is_accepted=False, reason="Conflict", message=message
                )
                continue
            kept.append(policy)
            for host in _hosts(policy):
                owners.setdefault(host, []).append(policy)
        return kept


@dataclass(slots=True)
class _Settled(Generic[Compiled]):
    in_force: list[Compiled]
    verdicts: dict[PolicyId, Verdict]


class PolicyBook:
    """Compiles policies against the services that exist. Keeps the last good versions between calls."""

    def __init__(self) -> None:
        self._virtual_services: _Shelf[CompiledVirtualService] = _Shelf(VIRTUAL_SERVICES)
        self._destination_rules: _Shelf[CompiledDestinationRule] = _Shelf(DESTINATION_RULES)

    def settle(
        self,
        virtual_services: Mapping[ObjectKey, VirtualService],
        destination_rules: Mapping[ObjectKey, DestinationRule],
        services: Iterable[ServiceFacts],
        domain: str,
    ) -> PoliciesInForce:
        """The policies in force now. Cost: every policy is compiled (about 50 us each)."""
        ports = {service.host: frozenset(p.number for p in service.ports) for service in services}
        registry = Registry(ports=ports, domain=domain)
        rules = self._destination_rules.settle(
            {key: compile_destination_rule(rule, registry) for key, rule in destination_rules.items()},
            {key: rule.metadata.generation for key, rule in destination_rules.items()},
        )
        by_host: dict[str, tuple[CompiledDestinationRule, ...]] = {}
        for rule in rules.in_force:
            by_host[rule.host] = (*by_host.get(rule.host, ()), rule)
        subsets = {host: frozenset(name for rule in group for name in rule.subsets) for host, group in by_host.items()}
        registry = Registry(ports=ports, subsets=subsets, domain=domain)
        routes = self._virtual_services.settle(
            {key: compile_virtual_service(service, registry) for key, service in virtual_services.items()},
            {key: service.metadata.generation for key, service in virtual_services.items()},
        )
        return PoliciesInForce(
            virtual_services=tuple(service for service in routes.in_force if service.is_for_sidecars),
            destination_rules=by_host,
            verdicts={**rules.verdicts, **routes.verdicts},
            asked_place=_asked_place(rules.in_force),
        )


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


def _rival(policy: Compiled, owners: Mapping[str, list[Compiled]]) -> tuple[str, Compiled] | None:
    for host in _hosts(policy):
        for other in owners.get(host, ()):
            if _overlap(policy.visibility, other.visibility):
                return host, other
    return None


def _overlap(one: Visibility, other: Visibility) -> bool:
    return not one.namespaces or not other.namespaces or bool(one.namespaces & other.namespaces)


def _object(provenance: Provenance) -> str:
    source = f" ({provenance.file}:{provenance.line})" if provenance.file else ""
    return f"{provenance.kind} {provenance.namespace}/{provenance.name}{source}"
