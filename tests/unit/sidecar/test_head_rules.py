"""What a listener does to heads before they are routed."""

from typing import Any

import pytest

from mesh.http.errors import HttpSyntaxError
from mesh.http.path import EscapedSlashes
from mesh.http.request import RequestHead, parse_request_head
from mesh.routing.table import DirectResponse, Redirect
from sidecar.config import HttpFilter, UnderscoreAction
from sidecar.head_rules import HeadRules

pytestmark = pytest.mark.unit

TRACE = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return parse_request_head(b"\r\n".join([first, b"Host: a", *lines]) + b"\r\n\r\n")


def lines_of(given: RequestHead, **config: Any) -> list[bytes]:
    """The header lines but Host that go on."""
    after, _, _ = HeadRules(HttpFilter(**config)).apply(given)
    return [line for line in after.header_lines if not line.lower().startswith(b"host:")]


TRACES = [
    ([b"traceparent: 00-" + TRACE + b"-01"], True),
    ([b"TraceParent: 00-" + TRACE + b"-02", b"tracestate: a=1,b=2"], True),
    ([b"traceparent: 00-" + TRACE + b"-01", b"tracestate: a=1", b"tracestate: b=2"], True),
    ([b"traceparent: 00-" + TRACE + b"-04"], [b"traceparent: 00-" + TRACE + b"-00"]),
    ([b"traceparent: 01-" + TRACE + b"-01-x"], [b"traceparent: 00-" + TRACE + b"-01"]),
    ([b"traceparent: ff-" + TRACE + b"-01", b"tracestate: a=1", b"X: y"], [b"X: y"]),
    ([b"traceparent: 00-" + TRACE + b"-01", b"traceparent: 00-" + TRACE + b"-01"], []),
    ([b"tracestate: a=1"], []),
    ([b"tracestate:"], []),
    ([b"traceparent: 00-" + TRACE + b"-01", b"tracestate: A=1"], [b"traceparent: 00-" + TRACE + b"-01"]),
    (
        [b"tracestate: a=1 ,,a=2", b"traceparent: 00-" + TRACE + b"-01", b"tracestate: c=3"],
        [b"traceparent: 00-" + TRACE + b"-01", b"tracestate: a=1,c=3"],
    ),
]


@pytest.mark.parametrize(("came", "goes"), TRACES, ids=range(len(TRACES)))
def test_only_legal_traces_go_on(came: list[bytes], goes: list[bytes] | bool) -> None:
    given = head(*came)
    after, _, _ = HeadRules(HttpFilter()).apply(given)
    if goes is True:
        assert after is given
    else:
        assert lines_of(given) == goes


def test_heads_without_anything_to_mend_are_the_same_object() -> None:
    strict = HttpFilter(normalize_path=True, use_remote_address=True, underscores=UnderscoreAction.REJECT)
    given = head(b"X-A: 1")
    for config in (HttpFilter(), strict):
        assert HeadRules(config).apply(given) == (given, None, None)


def test_a_head_written_anew_keeps_all_else() -> None:
    first = b"POST http://B.example/a/../c?d=/../e HTTP/1.1"
    given = head(b"Content-Length: 3", b"X: 1", b"x: 2", b"Connection: close", first=first)
    after, _, elsewhere = HeadRules(HttpFilter(normalize_path=True)).apply(given)
    assert (after.method, after.target, after.path, after.query) == (b"POST", b"/c?d=/../e", b"/c", b"d=/../e")
    assert (after.authority, after.content_length, after.keep_alive) == (b"b.example", 3, False)
    assert after.kept_lines == [b"X: 1", b"x: 2"]
    assert after.size_bytes == given.size_bytes
    assert elsewhere is None


def test_http_1_0_stays_so() -> None:
    given = parse_request_head(b"GET /a/./b HTTP/1.0\r\n\r\n")
    after, _, _ = HeadRules(HttpFilter(normalize_path=True)).apply(given)
    assert (after.minor, after.target, after.authority, after.keep_alive) == (0, b"/a/b", b"", False)


def test_redirect_and_refusal() -> None:
    rules = HeadRules(HttpFilter(escaped_slashes=EscapedSlashes.UNESCAPE_AND_REDIRECT))
    assert rules.apply(head(first=b"GET /a%2fb?c HTTP/1.1"))[2] == Redirect(path="/a/b?c", status=307, strip_query=True)
    assert rules.apply(head(first=b"GET /a/b?c=%2f HTTP/1.1"))[2] is None
    for config, first in (
        (HttpFilter(escaped_slashes=EscapedSlashes.REJECT), b"GET /a%2fb HTTP/1.1"),
        (HttpFilter(normalize_path=True), b"GET /a%00b HTTP/1.1"),
    ):
        with pytest.raises(HttpSyntaxError) as caught:
            HeadRules(config).apply(head(first=first))
        assert (caught.value.status, caught.value.reason) == (400, "bad-path")


def test_connect_is_not_normalised() -> None:
    given = head(first=b"CONNECT a:1 HTTP/1.1")
    assert HeadRules(HttpFilter(normalize_path=True, merge_slashes=True)).apply(given) == (given, None, None)


EDGE = [
    b"X-Request-Id: r", b"X-Forwarded-Proto: https", b"X-Forwarded-For: 1.1.1.1", b"x-envoy-attempt-count: 1",
    b"X-Envoy-Original-Path: /x", b"x-envoy-external-address: 1.1.1.1", b"X: y",
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"use_remote_address": True}, [2, 6]),
        ({"use_remote_address": True, "trusted_hops": 1}, [1, 2, 6]),
        ({"use_remote_address": True, "preserve_external_request_id": True}, [0, 2, 6]),
        ({"use_remote_address": True, "generate_request_id": False}, [0, 2, 6]),
    ],
)
def test_what_an_edge_believes(config: dict[str, Any], kept: list[int]) -> None:
    assert lines_of(head(*EDGE), **config) == [EDGE[at] for at in kept]


HOPS = [
    (b"OPTIONS", b"3", b"max-forwards: 2"),
    (b"TRACE", b"1", b"max-forwards: 0"),
    (b"GET", b"0", b"Max-Forwards: 0"),
    (b"OPTIONS", b"many", b"Max-Forwards: many"),
    (b"OPTIONS", b"99999999999999", b"Max-Forwards: 99999999999999"),
]


@pytest.mark.parametrize(("method", "hops", "line"), HOPS)
def test_hops_are_counted(method: bytes, hops: bytes, line: bytes) -> None:
    given = head(b"Max-Forwards: " + hops, b"X: y", first=method + b" / HTTP/1.1")
    assert sorted(lines_of(given)) == sorted([line, b"X: y"])
    assert HeadRules(HttpFilter()).apply(given)[2] is None


@pytest.mark.parametrize(("method", "status"), [(b"OPTIONS", 200), (b"TRACE", 501)])
def test_the_last_hop_answers(method: bytes, status: int) -> None:
    given = head(b"Max-Forwards: 0", first=method + b" / HTTP/1.1")
    assert HeadRules(HttpFilter()).apply(given)[2] == DirectResponse(status=status)


def test_underscores() -> None:
    given = head(b"X_A: 1", b"X-B: a_b")
    assert lines_of(given, underscores=UnderscoreAction.ALLOW) == [b"X_A: 1", b"X-B: a_b"]
    assert lines_of(given, underscores=UnderscoreAction.DROP) == [b"X-B: a_b"]
    with pytest.raises(HttpSyntaxError):
        lines_of(given, underscores=UnderscoreAction.REJECT)
