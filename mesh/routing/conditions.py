"""Conditions of routes made ready: each becomes one function over the request."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from mesh.routing.errors import RouteTableError
from mesh.routing.match import (
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    RangeMatch,
    RouteMatch,
    StringMatch,
)
from mesh.routing.regex import TextTest, compile_regex


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
    @property
    def scheme(self) -> bytes: ...
    def header(self, name: bytes) -> bytes | None:
        """A header's value (its values joined with a comma), or None. `name` is lower case."""
        ...

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """A header's values, one per line; empty when it does not occur."""
        ...


RequestTest = Callable[[RoutedRequest], bool]
Getter = Callable[[RoutedRequest], Sequence[bytes]]
"""The values that a condition compares; none when there is nothing."""

_TEXT_TESTS: dict[MatchKind, Callable[[bytes, bytes], bool]] = {
    MatchKind.EXACT: bytes.__eq__,
    MatchKind.PREFIX: bytes.startswith,
    MatchKind.SUFFIX: bytes.endswith,
    MatchKind.CONTAINS: bytes.__contains__,
}
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")


def compile_match(match: RouteMatch, where: str) -> tuple[RequestTest, ...]:
    """All conditions but the share of chance. `where` names the route in errors. Raises RouteTableError."""
    tests: list[RequestTest] = []
    path = _compile_path(match.path, where)
    if path is not None:
        tests.append(path)
    tests += compile_headers(match.headers, where)
    tests += [_compile_query(query, where) for query in match.query]
    return tuple(tests)


def compile_headers(headers: Sequence[HeaderMatch], where: str) -> list[RequestTest]:
    """Conditions on headers; all must hold."""
    return [_compile_header(header, where) for header in headers]


def _regex(pattern: str, ignore_case: bool, where: str) -> TextTest:
    try:
        return compile_regex(pattern, ignore_case=ignore_case)
    except RouteTableError as exc:
        raise RouteTableError(f"{where}: {exc}") from exc


def matches_any_path(match: PathMatch) -> bool:
    """Whether there is nothing to compare: the prefix `/`.

    DEVIATION: `*` (OPTIONS) has no slash and Envoy's `/` does not match it; but a catch-all should not answer it 404.
    """
    return match.kind is PathKind.PREFIX and match.value in ("", "/")


def _compile_path(match: PathMatch, where: str) -> RequestTest | None:
    """None when every path matches."""
    value = match.value.encode()
    if matches_any_path(match):
        return None
    if match.kind is PathKind.REGEX:
        pattern = _regex(match.value, match.ignore_case, where)
        return lambda request: pattern(request.path)
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
    if match.ignore_case:
        lower = value.lower()
        return lambda request: request.path.lower().startswith(lower)
    return lambda request: request.path.startswith(value)


def compile_text(match: StringMatch, where: str) -> TextTest:
    """A condition on a text. Raises RouteTableError."""
    value = match.value.encode()
    if match.kind is MatchKind.REGEX:
        return _regex(match.value, match.ignore_case, where)
    test = _TEXT_TESTS[match.kind]
    if match.ignore_case:
        lower = value.lower()
        return lambda text: test(text.lower(), lower)
    return lambda text: test(text, value)


_PSEUDO: dict[bytes, Getter] = {
    b":method": lambda request: (request.method,),
    b":path": lambda request: (request.target,),
    b":authority": lambda request: (request.authority,),
    b"host": lambda request: (request.authority,),
    b":scheme": lambda request: (request.scheme,),
}


def header_getter(name: str) -> Getter:
    """What a condition on header `name` compares; pseudo-headers name parts of the request line."""
    lower = name.lower().encode()
    return _PSEUDO.get(lower, lambda request: request.header_values(lower))


def query_getter(name: str) -> Getter:
    """The first value of a query parameter, as it stands in the target."""
    wanted = name.encode()

    def get(request: RoutedRequest) -> Sequence[bytes]:
        for part in (request.query or b"").split(b"&"):
            key, _, value = part.partition(b"=")
            if key == wanted and part:
                return (value,)
        return ()

    return get


def _compile_header(header: HeaderMatch, where: str) -> RequestTest:
    get = header_getter(header.name)
    invert = header.invert
    if header.match is not None:
        test = compile_text(header.match, f'{where}, header "{header.name}"')
    elif header.range is not None:
        test = _compile_range(header.range)
    else:
        return lambda request: bool(get(request)) != invert
    missing = invert != test(b"") if header.missing_as_empty else False

    def matches(request: RoutedRequest) -> bool:
        values = get(request)
        return any(map(test, values)) != invert if values else missing

    return matches


def _compile_range(limits: RangeMatch) -> TextTest:
    def test(text: bytes) -> bool:
        return _INTEGER.fullmatch(text) is not None and limits.start <= int(text) < limits.end

    return test


def _compile_query(query: QueryMatch, where: str) -> RequestTest:
    get = query_getter(query.name)
    if query.is_absent:
        return lambda request: not get(request)
    if query.match is None:
        return lambda request: bool(get(request))
    test = compile_text(query.match, f'{where}, query parameter "{query.name}"')

    def matches(request: RoutedRequest) -> bool:
        return any(map(test, get(request)))

    return matches
