"""Joins the HTTPRoutes of each Service in their order of precedence. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controlplane.discovery.verdicts import ParentVerdict, Verdict, object_name, overlap
from policies.http_route_values import CompiledHttpRoute, ParentService, RouteEntry
from policies.values import CompiledRoute, CompiledVirtualService, Visibility

Ports = Mapping[str, frozenset[int]]
"""host -> its service ports."""
_Place = tuple[tuple[int, ...], str, str, int]
"""Sorts the entries of one Service: rank, then the older route, then its name, then its order. Source: Gateway API."""


@dataclass(slots=True)
class _Joined:
    """The routes of one Service for one set of clients."""

    host: str
    visibility: Visibility
    entries: list[tuple[_Place, CompiledRoute]] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    routes: list[CompiledHttpRoute] = field(default_factory=list)

    def add(self, route: CompiledHttpRoute, parent: ParentService) -> None:
        self.routes.append(route)
        self.ports.add(parent.port)
        for number, entry in enumerate(route.entries):
            self.entries.append(((entry.rank, route.created, route.key, number), _on_port(entry, parent.port)))

    def compiled(self) -> CompiledVirtualService:
        oldest = min(self.routes, key=lambda route: (route.created, route.key))
        return CompiledVirtualService(
            key=oldest.key,
            generation=oldest.generation,
            created=oldest.created,
            hosts=(self.host,),
            routes=tuple(route for _, route in sorted(self.entries, key=lambda item: item[0])),
            visibility=self.visibility,
            ports=frozenset() if 0 in self.ports else frozenset(self.ports),
            provenance=oldest.provenance,
        )


def _on_port(entry: RouteEntry, port: int) -> CompiledRoute:
    if not port:
        return entry.route
    return replace(entry.route, matches=tuple(replace(match, port=port) for match in entry.route.matches))


def join_routes(
    routes: Iterable[CompiledHttpRoute], virtual_services: Sequence[CompiledVirtualService], ports: Ports
) -> tuple[tuple[CompiledVirtualService, ...], dict[str, Verdict]]:
    """The routes in force, as if VirtualServices said so, and the verdict on each HTTPRoute that has Services as parents.

    Routes from a Service's own namespace come first; those of clients' namespaces, which hide them there, come last.
    """
    joined: dict[tuple[str, Visibility], _Joined] = {}
    verdicts: dict[str, Verdict] = {}
    for route in routes:
        parents: list[ParentVerdict] = []
        for parent in route.parents:
            verdict = _judge(route, parent, virtual_services, ports)
            parents.append(verdict)
            if verdict.is_accepted:
                key = parent.host, parent.visibility
                joined.setdefault(key, _Joined(*key)).add(route, parent)
        if parents:
            verdicts[route.key] = verdict_of(route.generation, parents)
    ordered = sorted(joined.values(), key=lambda group: (bool(group.visibility.namespaces), group.host))
    return tuple(group.compiled() for group in ordered), verdicts


def verdict_of(generation: int, parents: Sequence[ParentVerdict]) -> Verdict:
    """The whole route's."""
    best = next((parent for parent in parents if parent.is_accepted), parents[0])
    return Verdict(
        generation=generation,
        is_accepted=best.is_accepted,
        reason=best.reason,
        message=best.message,
        parents=tuple(parents),
    )


def _judge(
    route: CompiledHttpRoute, parent: ParentService, virtual_services: Sequence[CompiledVirtualService], ports: Ports
) -> ParentVerdict:
    known = ports.get(parent.host)
    if known is None:
        return _refused(
            route, parent, "NoMatchingParent", f'"{parent.host}" is no Service: create it, or correct the name'
        )
    if parent.port and parent.port not in known:
        numbers = ", ".join(map(str, sorted(known)))
        return _refused(
            route, parent, "NoMatchingParent", f'"{parent.host}" has no port {parent.port}: it has {numbers}'
        )
    for other in virtual_services:
        if parent.host in other.hosts and overlap(parent.visibility, other.visibility):
            owner = object_name(other.provenance)
            message = f'{object_name(route.provenance)} and {owner} both route "{parent.host}": the VirtualService counts; remove one'
            return _refused(route, parent, "Conflict", message)
    return ParentVerdict(ref=parent.ref, is_accepted=True, reason="Accepted", unresolved=_unresolved(route))


def _refused(route: CompiledHttpRoute, parent: ParentService, reason: str, message: str) -> ParentVerdict:
    return ParentVerdict(
        ref=parent.ref, is_accepted=False, reason=reason, message=message, unresolved=_unresolved(route)
    )


def _unresolved(route: CompiledHttpRoute) -> tuple[str, str]:
    if not route.problems:
        return "", ""
    return route.problems[0].reason, "; ".join(problem.message for problem in route.problems)
