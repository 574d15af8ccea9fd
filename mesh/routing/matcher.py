"""The route table, compiled: from a request to the route that takes it.

Compilation happens when a snapshot is swapped. Each condition becomes one closure over bytes; hosts become dictionary look-ups.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Protocol

from mesh.resilience.retry import RetryPolicy
from mesh.routing.errors import RouteTableError
from mesh.routing.table import (
    Forward,
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    RangeMatch,
    Route,
    RouteTable,
    StringMatch,
    VirtualHost,
)


class RoutedRequest(Protocol):
    """What a route may ask about a request. `mesh.http.request.RequestHead` is one."""

    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    @property
    def query(self) -> bytes | None: ...
    @property
    def authority(self) -> bytes: ...
    def header(self, name: bytes) -> bytes | None:
        """A header's value (its values joined with a comma), or None. `name` is lower case."""
        ...


_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")

TextTest = Callable[[bytes], bool]
RequestTest = Callable[[RoutedRequest], bool]

_TEXT_TESTS: dict[MatchKind, Callable[[bytes, bytes], bool]] = {
    MatchKind.EXACT: bytes.__eq__,
    MatchKind.PREFIX: bytes.startswith,
    MatchKind.SUFFIX: bytes.endswith,
    MatchKind.CONTAINS: bytes.__contains__,
}


class CompiledRoute:
    """A route with its conditions and its split made ready. Read-only."""

    __slots__ = ("_cumulative", "_tests", "_total", "host", "retry", "route")

    def __init__(self, route: Route, host: VirtualHost, where: str) -> None:
        self.route = route
        self.host = host
        self.retry: RetryPolicy | None = None
        self._tests = _compile_match(route, where)
        self._cumulative: list[int] = []
        if isinstance(route.action, Forward):
            self._cumulative = list(accumulate(cluster.weight for cluster in route.action.clusters))
            self.retry = route.action.retry if route.action.retry is not None else host.retry
        self._total = self._cumulative[-1] if self._cumulative else 0

    def matches(self, request: RoutedRequest) -> bool:
        return all(test(request) for test in self._tests)

    def pick(self, draw: float) -> int:
        """The index of the split's branch for `draw`, uniform in [0, 1). Only for Forward routes."""
        return bisect_right(self._cumulative, draw * self._total)


class CompiledHost:
    """A virtual host's routes, in order."""

    __slots__ = ("host", "routes")

    def __init__(self, host: VirtualHost, table: str) -> None:
        self.host = host
        self.routes = tuple(
            CompiledRoute(route, host, f'route table "{table}", virtual host "{host.name}", route {at} "{route.name}"')
            for at, route in enumerate(host.routes)
        )


class CompiledTable:
    """A whole route table. Raises RouteTableError when it cannot be compiled (a bad regular expression or domain)."""

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes", "table")

    def __init__(self, table: RouteTable) -> None:
        self.table = table
        self._exact: dict[bytes, CompiledHost] = {}
        self._any: CompiledHost | None = None
        suffixes: list[tuple[bytes, CompiledHost]] = []
        prefixes: list[tuple[bytes, CompiledHost]] = []
        for host in table.virtual_hosts:
            compiled = CompiledHost(host, table.name)
            for domain in host.domains:
                text = domain.lower().encode()
                if text == b"*":
                    self._any = compiled
                elif text.startswith(b"*"):
                    suffixes.append((text[1:], compiled))
                elif text.endswith(b"*"):
                    prefixes.append((text[:-1], compiled))
                elif b"*" in text or not text:
                    raise RouteTableError(
                        f'route table "{table.name}", virtual host "{host.name}": domain "{domain}": '
                        "`*` may only be the first or the last character"
                    )
                else:
                    self._exact[text] = compiled
        self._suffixes = sorted(suffixes, key=lambda entry: -len(entry[0]))
        self._prefixes = sorted(prefixes, key=lambda entry: -len(entry[0]))

    def find_host(self, authority: bytes) -> CompiledHost | None:
        """The virtual host for a lower-case authority: exact, longest suffix, longest prefix, `*`."""
        if self.table.ignore_port_in_host:
            authority = _without_port(authority)
        found = self._exact.get(authority)
        if found is not None:
            return found
        for suffix, host in self._suffixes:
            if len(authority) > len(suffix) and authority.endswith(suffix):
                return host
        for prefix, host in self._prefixes:
            if len(authority) > len(prefix) and authority.startswith(prefix):
                return host
        return self._any

    def find(self, request: RoutedRequest) -> CompiledRoute | None:
        """The first route of the request's virtual host that matches; None: 404, flag NR."""
        host = self.find_host(request.authority)
        if host is not None:
            for route in host.routes:
                if route.matches(request):
                    return route
        return None


def _without_port(authority: bytes) -> bytes:
    host, colon, port = authority.rpartition(b":")
    return host if colon and port.isdigit() else authority


def _compile_match(route: Route, where: str) -> tuple[RequestTest, ...]:
    match = route.match
    tests: list[RequestTest] = []
    path = _compile_path(match.path, where)
    if path is not None:
        tests.append(path)
    tests += [_compile_header(header, where) for header in match.headers]
    tests += [_compile_query(query, where) for query in match.query]
    return tuple(tests)


def _regex(pattern: str, ignore_case: bool, where: str) -> re.Pattern[bytes]:
    try:
        return re.compile(pattern.encode(), re.IGNORECASE if ignore_case else re.NOFLAG)
    except re.error as exc:
        raise RouteTableError(f'{where}: regular expression "{pattern}": {exc}') from exc


def _compile_path(match: PathMatch, where: str) -> RequestTest | None:
    """None when every path matches."""
    value = match.value.encode()
    if match.kind is PathKind.REGEX:
        pattern = _regex(match.value, match.ignore_case, where)
        return lambda request: pattern.fullmatch(request.path) is not None
    if match.kind is PathKind.EXACT:
        if match.ignore_case:
            lower = value.lower()
            return lambda request: request.path.lower() == lower
        return lambda request: request.path == value
    if match.kind is PathKind.SEGMENT_PREFIX:
        bare = value.rstrip(b"/").lower() if match.ignore_case else value.rstrip(b"/")
        segment = bare + b"/"
        if match.ignore_case:
            return lambda request: request.path.lower() == bare or request.path.lower().startswith(segment)
        return lambda request: request.path == bare or request.path.startswith(segment)
    if value in (b"", b"/"):
        # `*` (OPTIONS) has no slash; Envoy's "/" does not match it either, but a catch-all should not answer it 404.
        return None
    if match.ignore_case:
        lower = value.lower()
        return lambda request: request.path.lower().startswith(lower)
    return lambda request: request.path.startswith(value)


def _compile_text(match: StringMatch, where: str) -> TextTest:
    value = match.value.encode()
    if match.kind is MatchKind.REGEX:
        pattern = _regex(match.value, match.ignore_case, where)
        return lambda text: pattern.fullmatch(text) is not None
    test = _TEXT_TESTS[match.kind]
    if match.ignore_case:
        lower = value.lower()
        return lambda text: test(text.lower(), lower)
    return lambda text: test(text, value)


def _header_getter(name: str) -> Callable[[RoutedRequest], bytes | None]:
    lower = name.lower().encode()
    pseudo: dict[bytes, Callable[[RoutedRequest], bytes | None]] = {
        b":method": lambda request: request.method,
        b":path": lambda request: request.target,
        b":authority": lambda request: request.authority,
        b"host": lambda request: request.authority,
        b":scheme": lambda request: b"http",
    }
    return pseudo.get(lower, lambda request: request.header(lower))


def _compile_header(header: HeaderMatch, where: str) -> RequestTest:
    get = _header_getter(header.name)
    invert = header.invert
    if header.match is not None:
        test = _compile_text(header.match, f'{where}, header "{header.name}"')
    elif header.range is not None:
        test = _compile_range(header.range)
    else:
        return lambda request: (get(request) is not None) != invert
    missing = invert != test(b"") if header.missing_as_empty else False

    def matches(request: RoutedRequest) -> bool:
        value = get(request)
        return missing if value is None else test(value) != invert

    return matches


def _compile_range(limits: RangeMatch) -> TextTest:
    def test(text: bytes) -> bool:
        return _INTEGER.fullmatch(text) is not None and limits.start <= int(text) < limits.end

    return test


def _compile_query(query: QueryMatch, where: str) -> RequestTest:
    name = query.name.encode()
    test = None if query.match is None else _compile_text(query.match, f'{where}, query parameter "{query.name}"')

    def matches(request: RoutedRequest) -> bool:
        for part in (request.query or b"").split(b"&"):
            key, _, value = part.partition(b"=")
            if key == name and part:
                return test is None or test(value)
        return False

    return matches
