"""The index of routes gives the answer of trying them in order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.http.request import RequestHead, parse_request_head
from mesh.routing.matcher import CompiledHost, CompiledRoute, CompiledTable
from mesh.routing.prefixes import PrefixIndex
from mesh.routing.regex import compile_regex, literal_prefix
from mesh.routing.table import (
    DirectResponse,
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    StringMatch,
    VirtualHost,
)

pytestmark = pytest.mark.unit

ANSWER = DirectResponse(status=200)
SEGMENTS = st.lists(st.sampled_from(["a", "b", "A", "ab", "a.b", ""]), max_size=4)
PATHS = SEGMENTS.map(lambda parts: "/" + "/".join(parts))
REGEXES = st.sampled_from(
    ["/.*", "/a/.*", "/a|/b", ".*b", "/(a|b)/?", "/a/b", "^/a.*$", "(?i)/a/.*", "/ab?", "/a{1,2}.*", "", "/\\Qa.b\\E.*"]
)
VALUES = st.sampled_from(["1", "2", "3", "12", ""])
TEXTS = st.builds(
    StringMatch,
    kind=st.sampled_from([MatchKind.EXACT, MatchKind.EXACT, MatchKind.EXACT, MatchKind.PREFIX, MatchKind.SUFFIX]),
    value=VALUES,
    ignore_case=st.sampled_from([False, False, True]),
)
HEADERS = st.builds(
    HeaderMatch,
    name=st.sampled_from(["x", "y", ":method", "X"]),
    match=st.one_of(st.none(), TEXTS),
    invert=st.sampled_from([False, False, True]),
    missing_as_empty=st.booleans(),
)
QUERIES = st.builds(QueryMatch, name=st.sampled_from(["q", "p"]), match=st.one_of(st.none(), TEXTS))
PLAIN_PATHS = st.builds(
    PathMatch,
    kind=st.sampled_from([PathKind.EXACT, PathKind.PREFIX, PathKind.SEGMENT_PREFIX]),
    value=PATHS,
    ignore_case=st.sampled_from([False, False, True]),
)
MATCHES = st.builds(
    RouteMatch,
    path=st.one_of(PLAIN_PATHS, PLAIN_PATHS, REGEXES.map(lambda text: PathMatch(kind=PathKind.REGEX, value=text))),
    headers=st.lists(HEADERS, max_size=2).map(tuple),
    query=st.lists(QUERIES, max_size=1).map(tuple),
    share=st.sampled_from([1.0, 1.0, 0.5]),
)


def head(target: str, *lines: str, method: str = "GET", host: str = "h") -> RequestHead:
    text = "".join(f"{line}\r\n" for line in lines)
    return parse_request_head(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{text}\r\n".encode())


REQUESTS = st.builds(
    lambda path, query, x, y, method: head(
        path + (f"?q={query}" if query is not None else ""),
        *([f"x: {x}", "X: 2"] if x == "3" else [f"x: {x}"] if x is not None else []),
        *([f"Y: {y}"] if y is not None else []),
        method=method,
    ),
    PATHS,
    st.one_of(st.none(), VALUES),
    st.one_of(st.none(), VALUES),
    st.one_of(st.none(), VALUES),
    st.sampled_from(["GET", "PUT"]),
)


def compiled(matches: list[RouteMatch]) -> CompiledHost:
    routes = tuple(Route(name=str(i), match=match, action=ANSWER) for i, match in enumerate(matches))
    return CompiledHost(VirtualHost(name="v", domains=("*",), routes=routes), "t")


def naively(host: CompiledHost, request: RequestHead, draw: float) -> CompiledRoute | None:
    return next((route for route in host.routes if route.matches(request, draw)), None)


@settings(max_examples=150, deadline=None)
@given(
    matches=st.lists(MATCHES, min_size=5, max_size=40),
    requests=st.lists(REQUESTS, min_size=1, max_size=8),
    draw=st.sampled_from([0.0, 0.7]),
)
def test_index_agrees_with_trying_every_route(
    matches: list[RouteMatch], requests: list[RequestHead], draw: float
) -> None:
    host = compiled(matches)
    for request in requests:
        assert host.find(request, draw) is naively(host, request, draw)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.tuples(VALUES, VALUES, st.sampled_from(["GET", "PUT"])), min_size=9, max_size=40),
    plain=st.lists(MATCHES, max_size=4),
    requests=st.lists(REQUESTS, min_size=1, max_size=8),
)
def test_index_by_values_agrees_with_trying_every_route(
    values: list[tuple[str, str, str]], plain: list[RouteMatch], requests: list[RequestHead]
) -> None:
    """Many routes of one path, told apart by headers, method and query."""

    def exact(value: str) -> StringMatch:
        return StringMatch(kind=MatchKind.EXACT, value=value)

    matches = [
        RouteMatch(
            headers=(HeaderMatch(name="x", match=exact(x)), HeaderMatch(name=":method", match=exact(method)))[at % 3 :],
            query=(QueryMatch(name="q", match=exact(q)),)[at % 2 :],
        )
        for at, (x, q, method) in enumerate(values)
    ]
    matches[4:4] = plain
    host = compiled(matches)
    for request in requests:
        assert host.find(request) is naively(host, request, 0.0)


def names_of(host: CompiledHost, *targets: str) -> list[str | None]:
    found = [host.find(head(target)) for target in targets]
    return [one.route.name if one is not None else None for one in found]


def test_an_earlier_regex_beats_a_later_exact_path() -> None:
    fillers = [RouteMatch(path=PathMatch(kind=PathKind.EXACT, value=f"/f{i}")) for i in range(10)]
    regex = RouteMatch(path=PathMatch(kind=PathKind.REGEX, value="/(a|b)"))
    exact = [RouteMatch(path=PathMatch(kind=PathKind.EXACT, value=value)) for value in ("/a", "/c")]
    assert names_of(compiled([*fillers, regex, *exact]), "/a", "/b", "/c") == ["10", "10", "12"]
    assert names_of(compiled([*fillers, *exact, regex]), "/a", "/b", "/c") == ["10", "12", "11"]


def test_an_earlier_short_prefix_beats_a_later_long_one() -> None:
    prefixes = [RouteMatch(path=PathMatch(value=value)) for value in ("/z", "/a", "/a/b", "/a/b/c", "/b", "/c")]
    assert names_of(compiled(prefixes), "/a/b/c", "/b/x", "/x") == ["1", "4", None]
    assert names_of(compiled(prefixes[::-1]), "/a/b/c") == ["2"]


@settings(max_examples=100, deadline=None)
@given(keys=st.sets(st.text("ab", max_size=6)), text=st.text("ab", max_size=9))
def test_prefix_index_finds_all_prefixes(keys: set[str], text: str) -> None:
    index = PrefixIndex({key.encode(): key for key in keys})
    found: list[str] = []
    node = index.deepest(text.encode())
    while node is not None:
        found.append(node.value)
        node = node.parent
    assert found == sorted((key for key in keys if text.startswith(key)), key=len, reverse=True)


@settings(max_examples=100, deadline=None)
@given(pattern=REGEXES, path=PATHS)
def test_every_match_begins_with_the_literal_prefix(pattern: str, path: str) -> None:
    if compile_regex(pattern)(path.encode()):
        assert path.encode().startswith(literal_prefix(pattern))


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("/api/v[0-9]+/x", b"/api/v"),
        ("/a\\.b/.*", b"/a.b/"),
        ("(a|b)c", b""),
        (".*", b""),
        ("(?i)/ab", b"/"),
        ("", b""),
    ],
)
def test_literal_prefixes(pattern: str, prefix: bytes) -> None:
    assert literal_prefix(pattern) == prefix


DOMAINS = st.lists(st.sampled_from(["a", "b", "c", "example"]), min_size=1, max_size=3).map(".".join)


@settings(max_examples=100, deadline=None)
@given(
    suffixes=st.sets(DOMAINS, max_size=6), prefixes=st.sets(DOMAINS, max_size=6), exact=st.sets(DOMAINS), host=DOMAINS
)
def test_wildcard_hosts_agree_with_their_rules(
    suffixes: set[str], prefixes: set[str], exact: set[str], host: str
) -> None:
    domains = [*(f"*.{one}" for one in suffixes), *(f"{one}.*" for one in prefixes), *exact]
    table = CompiledTable(
        RouteTable(name="t", virtual_hosts=tuple(VirtualHost(name=one, domains=(one,), routes=()) for one in domains))
    )
    ends = sorted((f"*.{one}" for one in suffixes if host.endswith(f".{one}") and host != f".{one}"), key=len)
    starts = sorted((f"{one}.*" for one in prefixes if host.startswith(f"{one}.")), key=len)
    wanted = host if host in exact else [*starts, *ends][-1] if starts or ends else None
    if ends and host not in exact:
        wanted = ends[-1]
    found = table.find_host(host.encode())
    assert (found.host.name if found is not None else None) == wanted


def many(kind: str, count: int) -> list[RouteMatch]:
    made: list[RouteMatch] = []
    for i in range(count):
        fields: dict[str, Any] = {}
        if kind == "header":
            value = StringMatch(kind=MatchKind.EXACT, value=f"tenant-{i}")
            fields["headers"] = (HeaderMatch(name="x-tenant", match=value),)
        elif kind == "query":
            fields["query"] = (QueryMatch(name="t", match=StringMatch(kind=MatchKind.EXACT, value=str(i))),)
        elif kind == "regex":
            fields["path"] = PathMatch(kind=PathKind.REGEX, value=f"/svc-{i}/v[0-9]+/.*")
        else:
            fields["path"] = PathMatch(kind=PathKind(kind), value=f"/svc-{i}/v1")
        made.append(RouteMatch(**fields))
    return made


class CountedRequest:
    """Counts how often a condition looks at it."""

    def __init__(self, real: RequestHead) -> None:
        self._real = real
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        self.looks += 1
        return getattr(self._real, name)


@pytest.mark.parametrize("kind", ["exact", "prefix", "segment_prefix", "regex", "header", "query"])
def test_cost_does_not_grow_with_the_number_of_routes(kind: str) -> None:
    host = compiled(many(kind, 3000))
    last = 2999
    target = f"/svc-{last}/v1/x" if kind == "regex" else f"/svc-{last}/v1?t={last}"
    request = CountedRequest(head(target, f"X-Tenant: tenant-{last}"))
    found = host.find(request)
    assert found is not None
    assert found.at == last
    assert request.looks <= 5
