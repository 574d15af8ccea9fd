"""The compiled route table."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.request import parse_request_head
from mesh.routing.errors import RouteTableError
from mesh.routing.matcher import CompiledTable
from mesh.routing.table import (
    Forward,
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    RangeMatch,
    Route,
    RouteMatch,
    RouteTable,
    StringMatch,
    VirtualHost,
    WeightedCluster,
)

pytestmark = pytest.mark.unit


def to(name: str, **match: object) -> Route:
    return Route(name=name, match=RouteMatch(**match), action=Forward(clusters=(WeightedCluster(name=name),)))  # type: ignore[arg-type]  # by name


def table(*routes: Route) -> CompiledTable:
    return CompiledTable(RouteTable(name="t", virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=routes),)))


def find(
    compiled: CompiledTable, target: str = "/", *headers: str, host: str = "a.example", method: str = "GET"
) -> str | None:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = parse_request_head(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
    found = compiled.find(head)
    return found.route.name if found is not None else None


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.example", "exact"),
        ("A.Example", "exact"),
        ("a.example:80", "port"),
        ("b.example", "suffix"),
        ("x.b.example", "long suffix"),
        ("web.local", "prefix"),
        ("else", "any"),
    ],
)
def test_hosts_match_exact_then_longest_suffix_then_prefix_then_any(host: str, name: str) -> None:
    domains = {
        "any": "*", "prefix": "web.*", "suffix": "*.example", "long suffix": "*.b.example", "exact": "a.example",
        "port": "a.example:80",
    }  # fmt: skip
    hosts = tuple(VirtualHost(name=n, domains=(d,), routes=(to(n),)) for n, d in domains.items())
    assert find(CompiledTable(RouteTable(name="t", virtual_hosts=hosts)), host=host) == name


def test_wildcard_needs_at_least_one_character() -> None:
    host = VirtualHost(name="v", domains=("*.example",), routes=(to("r"),))
    assert find(CompiledTable(RouteTable(name="t", virtual_hosts=(host,))), host=".example") is None


def test_port_can_be_ignored() -> None:
    host = VirtualHost(name="v", domains=("a.example",), routes=(to("r"),))
    assert find(CompiledTable(RouteTable(name="t", virtual_hosts=(host,))), host="a.example:8080") is None
    assert find(
        CompiledTable(RouteTable(name="t", virtual_hosts=(host,), ignore_port_in_host=True)), host="a.example:8080"
    )


@pytest.mark.parametrize(
    ("path", "target", "matches"),
    [
        (PathMatch(kind=PathKind.EXACT, value="/a"), "/a?x", True),
        (PathMatch(kind=PathKind.EXACT, value="/a"), "/a/", False),
        (PathMatch(kind=PathKind.EXACT, value="/A", ignore_case=True), "/a", True),
        (PathMatch(value="/a"), "/ab", True),
        (PathMatch(value="/A", ignore_case=True), "/ab", True),
        (PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/a"), "/a/b", True),
        (PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/a/"), "/a", True),
        (PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/a"), "/ab", False),
        (PathMatch(kind=PathKind.REGEX, value="/v[0-9]+/.*"), "/v12/x", True),
        (PathMatch(kind=PathKind.REGEX, value="/v[0-9]+"), "/v12/x", False),
        (PathMatch(kind=PathKind.REGEX, value="/v[0-9]+"), "/v12?/v", True),
    ],
)
def test_paths(path: PathMatch, target: str, matches: bool) -> None:
    assert (find(table(to("r", path=path)), target) == "r") is matches


def text(kind: MatchKind, value: str, *, ignore_case: bool = False) -> StringMatch:
    return StringMatch(kind=kind, value=value, ignore_case=ignore_case)


@pytest.mark.parametrize(
    ("header", "line", "matches"),
    [
        (HeaderMatch(name="x"), "X: 1", True),
        (HeaderMatch(name="x"), "Y: 1", False),
        (HeaderMatch(name="x", invert=True), "Y: 1", True),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a")), "X: a", True),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a")), "X: A", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a", ignore_case=True)), "X: A", True),
        (HeaderMatch(name="x", match=text(MatchKind.PREFIX, "ab")), "X: abc", True),
        (HeaderMatch(name="x", match=text(MatchKind.SUFFIX, "bc")), "X: abc", True),
        (HeaderMatch(name="x", match=text(MatchKind.CONTAINS, "b")), "X: abc", True),
        (HeaderMatch(name="x", match=text(MatchKind.REGEX, "a.c")), "X: abcd", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a"), invert=True), "X: b", True),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a"), invert=True), "Y: b", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a"), invert=True, missing_as_empty=True), "Y: b", True),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "a,b")), "X: a\r\nX: b", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "b")), "X: a\r\nX: b", True),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "b")), "X: a, b", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "b"), invert=True), "X: a\r\nX: b", False),
        (HeaderMatch(name="x", match=text(MatchKind.EXACT, "c"), invert=True), "X: a\r\nX: b", True),
        (HeaderMatch(name="x", range=RangeMatch(start=-5, end=10)), "X: -5", True),
        (HeaderMatch(name="x", range=RangeMatch(start=-5, end=10)), "X: 10", False),
        (HeaderMatch(name="x", range=RangeMatch(start=-5, end=10)), "X: 1.0", False),
        (HeaderMatch(name="x", range=RangeMatch(start=-5, end=10), invert=True), "X: 11", True),
        (HeaderMatch(name=":scheme", match=text(MatchKind.EXACT, "https")), "X-Forwarded-Proto: https", True),
        (HeaderMatch(name=":scheme", match=text(MatchKind.EXACT, "http")), "Y: b", True),
        (HeaderMatch(name=":method", match=text(MatchKind.EXACT, "GET")), "Y: b", True),
        (HeaderMatch(name=":path", match=text(MatchKind.SUFFIX, "?q=1")), "Y: b", True),
        (HeaderMatch(name=":authority", match=text(MatchKind.EXACT, "a.example")), "Y: b", True),
    ],
)
def test_headers(header: HeaderMatch, line: str, matches: bool) -> None:
    assert (find(table(to("r", headers=(header,))), "/?q=1", line) == "r") is matches


@pytest.mark.parametrize(("target", "matches"), [("/?a=1&b=2", True), ("/?b=2", False), ("/", False), ("/?a=2", False)])
def test_query_parameters(target: str, matches: bool) -> None:
    query = QueryMatch(name="a", match=text(MatchKind.EXACT, "1"))
    assert (find(table(to("r", query=(query,))), target) == "r") is matches


def test_first_route_that_matches_wins() -> None:
    compiled = table(to("long", path=PathMatch(value="/a/b")), to("short", path=PathMatch(value="/a")), to("all"))
    assert [find(compiled, target) for target in ("/a/b", "/a/c", "/x")] == ["long", "short", "all"]


def test_split_gives_each_branch_its_share() -> None:
    action = Forward(clusters=tuple(WeightedCluster(name=n, weight=w) for n, w in (("a", 90), ("none", 0), ("b", 10))))
    compiled = table(Route(name="r", action=action)).find(parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert compiled is not None
    rng = random.Random(7)
    counts = Counter(compiled.pick(rng.random()) for _ in range(20000))
    assert counts[1] == 0
    assert 0.09 < counts[2] / 20000 < 0.11
    assert compiled.pick(0.0) == 0
    assert compiled.pick(0.9999999999999999) == 2


@given(weights=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), draw=st.floats(0, 1, exclude_max=True))
def test_a_branch_without_weight_is_never_picked(weights: list[int], draw: float) -> None:
    action = Forward(clusters=tuple(WeightedCluster(name=str(n), weight=w) for n, w in enumerate(weights)))
    compiled = table(Route(name="r", action=action)).find(parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert compiled is not None
    assert weights[compiled.pick(draw)] > 0


def test_mistakes_name_their_place() -> None:
    with pytest.raises(RouteTableError, match=r'virtual host "v", route 0 "r".*"\("'):
        table(to("r", path=PathMatch(kind=PathKind.REGEX, value="(")))
    with pytest.raises(RouteTableError, match=r'domain "a\*b"'):
        CompiledTable(RouteTable(name="t", virtual_hosts=(VirtualHost(name="v", domains=("a*b",), routes=()),)))
    with pytest.raises(RouteTableError, match="a domain belongs to one"):
        RouteTable(name="t", virtual_hosts=tuple(VirtualHost(name=n, domains=("a",), routes=()) for n in "xy"))
    with pytest.raises(RouteTableError, match="sum to more than 0"):
        Forward(clusters=(WeightedCluster(name="a", weight=0),))


def test_a_catch_all_takes_the_asterisk_form_too() -> None:
    """DEVIATION: Envoy's prefix `/` does not match `*`."""
    assert find(table(to("r")), "*", method="OPTIONS") == "r"
    assert find(table(to("r", path=PathMatch(value="/a"))), "*", method="OPTIONS") is None
