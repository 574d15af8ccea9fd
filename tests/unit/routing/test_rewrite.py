"""Rewrites, redirects and header changes."""

from typing import Any

import pytest

from mesh.http.request import RequestHead, parse_request_head
from mesh.routing.errors import RouteTableError
from mesh.routing.rewrite import mutate_lines, redirect_location, rewrite_host, rewrite_target
from mesh.routing.table import (
    Forward,
    HeaderMutation,
    HeaderValue,
    PathKind,
    PathMatch,
    Presence,
    Redirect,
    RegexRewrite,
    WeightedCluster,
)

pytestmark = pytest.mark.unit

CLUSTER = (WeightedCluster(name="c"),)


def request(target: str, *headers: str, host: str = "a.example") -> RequestHead:
    lines = "".join(f"{line}\r\n" for line in headers)
    return parse_request_head(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())


@pytest.mark.parametrize(
    ("match", "rewrite", "target", "want"),
    [
        (PathMatch(value="/api/"), "/", b"/api/x?q=1", b"/x?q=1"),
        (PathMatch(value="/api"), "/", b"/api/x", b"//x"),
        (PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/api"), "/", b"/api/x", b"/x"),
        (PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/api"), "/", b"/api", b"/"),
        (PathMatch(kind=PathKind.EXACT, value="/a"), "/b", b"/a?q", b"/b?q"),
    ],
)
def test_prefix_rewrite(match: PathMatch, rewrite: str, target: bytes, want: bytes) -> None:
    assert rewrite_target(Forward(clusters=CLUSTER, prefix_rewrite=rewrite), match, target) == want


def test_regex_rewrite_keeps_the_query() -> None:
    action = Forward(clusters=CLUSTER, regex_rewrite=RegexRewrite(pattern="^/v([0-9])/(.*)$", substitution=r"/\2/\1"))
    assert rewrite_target(action, PathMatch(), b"/v2/x?/v3/y") == b"/x/2?/v3/y"


@pytest.mark.parametrize(
    ("redirect", "want"),
    [
        (Redirect(), b"http://a.example:80/old/x?q"),
        (Redirect(scheme="https"), b"https://a.example/old/x?q"),
        (Redirect(scheme="http"), b"http://a.example:80/old/x?q"),
        (Redirect(scheme="https", port=443), b"https://a.example:443/old/x?q"),
        (Redirect(host="b.example", port=1), b"http://b.example:1/old/x?q"),
        (Redirect(strip_query=True), b"http://a.example:80/old/x"),
        (Redirect(path="/new?z", strip_query=True), b"http://a.example:80/new?z"),
        (
            Redirect(regex_rewrite=RegexRewrite(pattern="^/old/(.*)$", substitution=r"/\1/\0")),
            b"http://a.example:80/x//old/x?q",
        ),
        (Redirect(host="b.example"), b"http://b.example/old/x?q"),
        (Redirect(port=8443, scheme="https"), b"https://a.example:8443/old/x?q"),
        (Redirect(path="/new", strip_query=True), b"http://a.example:80/new"),
        (Redirect(path="/new?z"), b"http://a.example:80/new?z"),
        (Redirect(prefix_rewrite="/new"), b"http://a.example:80/new/x?q"),
    ],
)
def test_redirect_location(redirect: Redirect, want: bytes) -> None:
    assert redirect_location(redirect, PathMatch(value="/old"), request("/old/x?q", host="a.example:80")) == want


@pytest.mark.parametrize(
    ("redirect", "host", "proto", "want"),
    [
        (Redirect(scheme="http"), "a.example:443", "https", b"http://a.example/"),
        (Redirect(), "a.example:443", "https", b"https://a.example:443/"),
        (Redirect(scheme="https"), "[::1]:80", "http", b"https://[::1]/"),
        (Redirect(port=81), "[::1]", "http", b"http://[::1]:81/"),
    ],
)
def test_redirect_drops_the_old_schemes_port(redirect: Redirect, host: str, proto: str, want: bytes) -> None:
    asked = request("/", f"X-Forwarded-Proto: {proto}", host=host)
    assert redirect_location(redirect, PathMatch(), asked) == want


@pytest.mark.parametrize(
    ("action", "branch", "want"),
    [
        ({}, {}, b"a.example"),
        ({"host_rewrite": "b"}, {}, b"b"),
        ({"host_rewrite": "b"}, {"host_rewrite": "c"}, b"c"),
        ({"host_rewrite_header": "x-host"}, {}, b"other"),
        ({"host_rewrite_header": "x-absent"}, {}, b"a.example"),
        ({"host_rewrite_regex": RegexRewrite(pattern="^/([^/]+)/.*$", substitution=r"\1")}, {}, b"seg"),
    ],
)
def test_host_rewrite(action: dict[str, Any], branch: dict[str, Any], want: bytes) -> None:
    made = Forward(clusters=(WeightedCluster(name="c", **branch),), **action)
    assert rewrite_host(made, made.clusters[0], request("/seg/x?y", "X-Host: other")) == want


def test_rewrites_of_the_host_exclude_each_other() -> None:
    with pytest.raises(RouteTableError, match="exclude each other"):
        Forward(clusters=CLUSTER, host_rewrite="a", host_rewrite_header="b")


def test_header_changes_replace_append_and_remove() -> None:
    change = HeaderMutation(
        add=(HeaderValue(name="a", value="2"), HeaderValue(name="b", value="3", append=True)), remove=("C",)
    )
    lines = [b"A: 1", b"b: 1", b"c: 1", b"d: 1"]
    assert mutate_lines(lines, (change,)) == [b"b: 1", b"d: 1", b"a: 2", b"b: 3"]
    assert lines == [b"A: 1", b"b: 1", b"c: 1", b"d: 1"]


@pytest.mark.parametrize(
    ("value", "present", "absent"),
    [
        ({"append": True}, [b"a: 1", b"a: 2"], [b"a: 2"]),
        ({"append": True, "when": Presence.ABSENT}, [b"a: 1"], [b"a: 2"]),
        ({}, [b"a: 2"], [b"a: 2"]),
        ({"when": Presence.PRESENT}, [b"a: 2"], []),
    ],
)
def test_four_ways_to_add_a_header(value: dict[str, Any], present: list[bytes], absent: list[bytes]) -> None:
    change = HeaderMutation(add=(HeaderValue(name="a", value="2", **value),))
    assert mutate_lines([b"a: 1"], (change,)) == present
    assert mutate_lines([], (change,)) == absent


def test_conditions_look_at_the_block_before_the_additions() -> None:
    change = HeaderMutation(
        add=(
            HeaderValue(name="a", value="1", append=True),
            HeaderValue(name="a", value="2", append=True, when=Presence.ABSENT),
            HeaderValue(name="a", value="3", when=Presence.PRESENT),
        )
    )
    assert mutate_lines([], (change,)) == [b"a: 1", b"a: 2"]
