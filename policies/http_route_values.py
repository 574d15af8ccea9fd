"""Compiled HTTPRoutes: what each says, before the routes of one Service are joined."""

from dataclasses import dataclass

from mesh.api.gateway import ParentReference
from mesh.routing.table import Provenance
from policies.values import CompiledRoute, Visibility

Rank = tuple[int, ...]
"""Less is more exact. Source: Gateway API, HTTPRouteRule.matches: exact path, then the longest prefix, then a method, then the
number of headers, then of query parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentService:
    """One Service the route is for."""

    ref: ParentReference
    """As the route names it."""
    host: str
    port: int = 0
    """0: all of its ports."""
    visibility: Visibility
    """Its own namespace's routes are for every client, those of another namespace for the clients there. Source: GAMMA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEntry:
    """One match of one rule."""

    rank: Rank
    route: CompiledRoute
    """With exactly one match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceProblem:
    """A backend that cannot be used."""

    reason: str
    """BackendNotFound, InvalidKind or RefNotPermitted. Source: Gateway API, RouteConditionReason."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledHttpRoute:
    """One HTTPRoute."""

    key: str
    """namespace/name."""
    generation: int
    created: str
    parents: tuple[ParentService, ...]
    entries: tuple[RouteEntry, ...]
    """In the order of the rules and their matches."""
    problems: tuple[ReferenceProblem, ...] = ()
    provenance: Provenance
