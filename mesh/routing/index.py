"""The routes of one virtual host, found without trying them all, with the same answer as trying them in order.

Every route stands under the most telling thing that its path must be or begin with: the exact path, a prefix (also the literal beginning of
a regular expression), or nothing. A look-up visits the few places that the request's path can lead to, and in each only routes that
come before the best one found so far; all conditions of a route are tested there, so the index need only leave out what cannot match.
Where many routes share one place, they are told apart by the values that they want of one header or query parameter.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from mesh.routing.conditions import Getter, RoutedRequest, header_getter, matches_any_path, query_getter
from mesh.routing.match import MatchKind, PathKind, RouteMatch, StringMatch
from mesh.routing.prefixes import PrefixIndex
from mesh.routing.regex import literal_prefix

_FEW = 8
"""Routes in one place that are simply tried in order."""

ValueKey = tuple[bool, str]
"""(it is a header, its name); otherwise a query parameter."""


class IndexedRoute(Protocol):
    """What the index knows of a route. `mesh.routing.matcher.CompiledRoute` is one."""

    @property
    def at(self) -> int:
        """Its place in the virtual host's order."""
        ...

    @property
    def match(self) -> RouteMatch: ...

    def matches(self, request: RoutedRequest, draw: float) -> bool: ...


R = TypeVar("R", bound=IndexedRoute)


class Bucket(Generic[R]):
    """Routes that share one place of the index, in order."""

    __slots__ = ("first_at", "get", "least_at", "rest", "routes", "values")

    def __init__(self, routes: Sequence[R], used: frozenset[ValueKey] = frozenset()) -> None:
        self.first_at = self.least_at = routes[0].at
        """Of its first route; of the first route here or in a shorter prefix's bucket."""
        self.routes = tuple(routes)
        """Tried one by one, when `get` is None."""
        self.get: Getter | None = None
        self.values: dict[bytes, Bucket[R]] = {}
        """By what `get` says of the request."""
        self.rest: Bucket[R] | None = None
        """Those that don't ask for that value."""
        key = _telling_key(routes, used) if len(routes) > _FEW else None
        if key is not None:
            self._split(key, used | {key})

    def _split(self, key: ValueKey, used: frozenset[ValueKey]) -> None:
        by_value: defaultdict[bytes, list[R]] = defaultdict(list)
        others: list[R] = []
        for route in self.routes:
            wanted = _exact_values(route.match).get(key)
            (others if wanted is None else by_value[wanted]).append(route)
        is_header, name = key
        self.get = header_getter(name) if is_header else query_getter(name)
        self.values = {value: Bucket(routes, used) for value, routes in by_value.items()}
        self.rest = Bucket(others, used) if others else None
        self.routes = ()

    def find(self, request: RoutedRequest, draw: float, before: int) -> R | None:
        """The first route of this bucket that matches, if it stands before `before`."""
        if self.get is None:
            for route in self.routes:
                if route.at >= before:
                    return None
                if route.matches(request, draw):
                    return route
            return None
        found: R | None = None
        for value in self.get(request):
            bucket = self.values.get(value)
            if bucket is not None and bucket.first_at < before:
                better = bucket.find(request, draw, before)
                if better is not None:
                    found, before = better, better.at
        if self.rest is not None and self.rest.first_at < before:
            return self.rest.find(request, draw, before) or found
        return found


def _exact_values(match: RouteMatch) -> dict[ValueKey, bytes]:
    """The values that a request must have, byte for byte."""
    values: dict[ValueKey, bytes] = {}
    for header in match.headers:
        if header.match is not None and not header.invert and not header.missing_as_empty and _is_exact(header.match):
            values[(True, header.name.lower())] = header.match.value.encode()
    for query in match.query:
        if query.match is not None and not query.is_absent and _is_exact(query.match):
            values[(False, query.name)] = query.match.value.encode()
    return values


def _is_exact(match: StringMatch) -> bool:
    return match.kind is MatchKind.EXACT and not match.ignore_case


def _telling_key(routes: Iterable[IndexedRoute], used: frozenset[ValueKey]) -> ValueKey | None:
    """The header or parameter whose values tell most of the routes apart."""
    values = Counter((key, value) for route in routes for key, value in _exact_values(route.match).items())
    distinct = Counter(key for key, _ in values if key not in used)
    if not distinct:
        return None
    key, count = distinct.most_common(1)[0]
    return key if count > 1 else None


class RouteIndex(Generic[R]):
    """Finds the first of many routes that matches a request."""

    __slots__ = ("_exact", "_exact_folded", "_prefixes", "_prefixes_folded", "_rest")

    def __init__(self, routes: Sequence[R]) -> None:
        places: dict[str, defaultdict[bytes, list[R]]] = defaultdict(lambda: defaultdict(list))
        for route in routes:
            place, key = _place_of(route.match)
            places[place][key].append(route)
        self._exact = _buckets(places["exact"])
        self._exact_folded = _buckets(places["exact folded"])
        self._prefixes = _prefix_index(places["prefix"])
        self._prefixes_folded = _prefix_index(places["prefix folded"])
        rest = places["rest"].get(b"")
        self._rest = Bucket(rest) if rest else None

    def find(self, request: RoutedRequest, draw: float) -> R | None:
        """The first route that matches. `draw` is uniform in [0, 1)."""
        path = request.path
        found: R | None = None
        before = sys.maxsize
        bucket = self._exact.get(path)
        if bucket is not None:
            found = bucket.find(request, draw, before)
            before = found.at if found is not None else before
        if self._prefixes is not None:
            better = _find_prefix(self._prefixes, path, request, draw, before)
            if better is not None:
                found, before = better, better.at
        if self._exact_folded or self._prefixes_folded is not None:
            better = self._find_folded(path.lower(), request, draw, before)
            if better is not None:
                found, before = better, better.at
        if self._rest is not None and self._rest.first_at < before:
            found = self._rest.find(request, draw, before) or found
        return found

    def _find_folded(self, path: bytes, request: RoutedRequest, draw: float, before: int) -> R | None:
        bucket = self._exact_folded.get(path)
        found = bucket.find(request, draw, before) if bucket is not None else None
        before = found.at if found is not None else before
        if self._prefixes_folded is None:
            return found
        return _find_prefix(self._prefixes_folded, path, request, draw, before) or found


def _find_prefix(
    index: PrefixIndex[Bucket[R]], path: bytes, request: RoutedRequest, draw: float, before: int
) -> R | None:
    found: R | None = None
    node = index.deepest(path)
    while node is not None:
        bucket = node.value
        if bucket.least_at >= before:
            break  # so are those of all shorter prefixes
        if bucket.first_at < before:
            better = bucket.find(request, draw, before)
            if better is not None:
                found, before = better, better.at
        node = node.parent
    return found


def _buckets(places: Mapping[bytes, list[R]]) -> dict[bytes, Bucket[R]]:
    return {key: Bucket(routes) for key, routes in places.items()}


def _prefix_index(places: Mapping[bytes, list[R]]) -> PrefixIndex[Bucket[R]] | None:
    if not places:
        return None
    index = PrefixIndex(_buckets(places))
    for node in index.nodes():
        if node.parent is not None:
            node.value.least_at = min(node.value.first_at, node.parent.value.least_at)
    return index


def _place_of(match: RouteMatch) -> tuple[str, bytes]:
    path = match.path
    value = path.value.encode()
    folded = " folded" if path.ignore_case else ""
    if path.ignore_case:
        value = value.lower()
    if matches_any_path(path):
        return "rest", b""
    if path.kind is PathKind.EXACT:
        return "exact" + folded, value
    if path.kind is PathKind.SEGMENT_PREFIX:
        value = value.rstrip(b"/")
    elif path.kind is PathKind.REGEX:
        value, folded = b"" if path.ignore_case else literal_prefix(path.value), ""
    return ("prefix" + folded, value) if value else ("rest", b"")
