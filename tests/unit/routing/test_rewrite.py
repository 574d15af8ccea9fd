"""Rewrites, redirects and header changes."""

import pytest

from mesh.routing.rewrite import mutate_lines, redirect_location, rewrite_target
from mesh.routing.table import (
    Forward,
    HeaderMutation,
    HeaderValue,
    PathKind,
    PathMatch,
    Redirect,
    RegexRewrite,
    WeightedCluster,
)

pytestmark = pytest.mark.unit

CLUSTER = (WeightedCluster(name="c"),)


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
        (Redirect(host="b.example"), b"http://b.example/old/x?q"),
        (Redirect(port=8443, scheme="https"), b"https://a.example:8443/old/x?q"),
        (Redirect(path="/new", strip_query=True), b"http://a.example:80/new"),
        (Redirect(path="/new?z"), b"http://a.example:80/new?z"),
        (Redirect(prefix_rewrite="/new"), b"http://a.example:80/new/x?q"),
    ],
)
def test_redirect_location(redirect: Redirect, want: bytes) -> None:
    assert redirect_location(redirect, PathMatch(value="/old"), b"a.example:80", b"/old/x?q") == want


def test_header_changes_replace_append_and_remove() -> None:
    change = HeaderMutation(
        add=(HeaderValue(name="a", value="2"), HeaderValue(name="b", value="3", append=True)), remove=("C",)
    )
    lines = [b"A: 1", b"b: 1", b"c: 1", b"d: 1"]
    assert mutate_lines(lines, (change,)) == [b"b: 1", b"d: 1", b"a: 2", b"b: 3"]
    assert lines == [b"A: 1", b"b: 1", b"c: 1", b"d: 1"]
