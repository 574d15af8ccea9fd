"""What is fuzzed: each target takes bytes and fails by an exception. Used by `fuzz.py` under atheris, and by a unit test on its seeds."""

import re
from collections.abc import Callable, Iterable

from mesh.http.body import ChunkedReader
from mesh.http.errors import HttpSyntaxError
from mesh.http.path import normalise_path
from mesh.http.request import RequestHead, find_request_head, parse_request_head
from mesh.http.response import find_response_head, parse_response_head
from mesh.routing.matcher import CompiledTable
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
from mesh.telemetry.trace_context import combine_tracestate, parse_traceparent
from tests.interop.differential.corpus import CORPUS
from tests.unit.sidecar.pipeline import bytewise, run, whole
from tests.unit.sidecar.test_pipeline import PLAIN, comparable

MAX_BYTES = 4096


def request_head(data: bytes) -> None:
    """Taken or refused alike, whole and byte by byte."""
    assert _first(_request_outcome, data) == _request_outcome(data)


def response_head(data: bytes) -> None:
    assert _first(_response_outcome, data) == _response_outcome(data)


def _first(outcome: Callable[[bytes], object], data: bytes) -> object:
    """The outcome for bytes that come one by one."""
    return next((found for n in range(len(data) + 1) if (found := outcome(data[:n])) != "more"), "more")


def _request_outcome(data: bytes) -> object:
    try:
        end = find_request_head(data)
        if end < 0:
            return "more"
        head = parse_request_head(data[:end])
    except HttpSyntaxError:
        return "refused"
    assert head.kept_lines is not None
    return end, head.method, head.target, head.authority, head.kept_lines, head.content_length, head.upgrade


def _response_outcome(data: bytes) -> object:
    try:
        end = find_response_head(data)
        if end < 0:
            return "more"
        head = parse_response_head(data[:end])
    except HttpSyntaxError:
        return "refused"
    return end, head.status, head.reason, head.kept_lines, head.content_length, head.body_kind(b"GET")


def chunked_body(data: bytes) -> None:
    """The first byte says how to cut the others."""
    step = (data[0] if data else 0) % 16 + 1
    assert _read_chunks(data[1:], step) == _read_chunks(data[1:], MAX_BYTES)


def _read_chunks(data: bytes, step: int) -> object:
    reader = ChunkedReader()
    payload, at = b"", 0
    try:
        while at < len(data) and not reader.done:
            pieces, taken = reader.feed(data[at : at + step])
            payload += b"".join(pieces)
            at += taken
    except HttpSyntaxError:
        return "refused"
    return payload, reader.done, reader.trailers, at if reader.done else 0


def path(data: bytes) -> None:
    """What is normal stays so, and has no dot segments."""
    once = normalise_path(b"/" + bytes(byte for byte in data if 0x20 < byte < 0x7F and byte not in b"?#"))
    if once is None:
        return
    assert normalise_path(once) == once
    assert not {b".", b".."} & {segment.partition(b";")[0] for segment in once.split(b"/")}


def trace(data: bytes) -> None:
    parent = parse_traceparent(data)
    if parent is not None:
        again = parse_traceparent(parent.header())
        assert again == parent
    state = combine_tracestate(data)
    assert combine_tracestate(state) == state


def _table() -> CompiledTable:
    kinds = [
        PathMatch(kind=PathKind.EXACT, value="/a"),
        PathMatch(kind=PathKind.PREFIX, value="/a/b"),
        PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/c", ignore_case=True),
        PathMatch(kind=PathKind.REGEX, value="/d/[0-9]+(/.*)?"),
        PathMatch(kind=PathKind.PREFIX, value="/"),
    ]
    conditions = [
        RouteMatch(path=kind, headers=headers, query=query)
        for kind in kinds
        for headers in (
            (HeaderMatch(name="x", match=StringMatch(kind=MatchKind.EXACT, value="1")),),
            (HeaderMatch(name="cookie"),),
            (),
        )
        for query in ((QueryMatch(name="q", match=StringMatch(kind=MatchKind.PREFIX, value="1")),), ())
    ]
    routes = tuple(
        Route(name=str(at), match=match, action=DirectResponse(status=200)) for at, match in enumerate(conditions)
    )
    domains = (("a", "*.example"), ("b.*",), ("*",))
    hosts = tuple(VirtualHost(name=str(at), domains=those, routes=routes) for at, those in enumerate(domains))
    return CompiledTable(RouteTable(name="t", virtual_hosts=hosts))


_TABLE = _table()


def routes(data: bytes) -> None:
    """The index finds what trying every route in order finds."""
    try:
        end = find_request_head(data)
        head = parse_request_head(data[:end]) if end > 0 else None
    except HttpSyntaxError:
        return
    host = _TABLE.find_host(head.authority) if head is not None else None
    if head is None or host is None:
        return
    assert host.find(head, 0.0) is _in_order(head, host.routes)


def _in_order(head: RequestHead, those: Iterable[object]) -> object:
    return next((route for route in those if route.matches(head, 0.0)), None)  # type: ignore[attr-defined]


def pipeline(data: bytes) -> None:
    """The whole way of a client's bytes, whole and byte by byte, to an upstream that answers everything with 200."""
    want = comparable(run(whole(data), [], http=PLAIN, cut=whole))
    assert comparable(run(bytewise(data), [], http=PLAIN, cut=bytewise)) == want


def answers(data: bytes) -> None:
    """Whatever the upstream says, and however it comes, requests end and are counted as ended."""
    requests = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"]
    for cut in (whole, bytewise):
        run(requests, [data], http=PLAIN, cut=cut)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request_head": request_head,
    "response_head": response_head,
    "chunked_body": chunked_body,
    "path": path,
    "trace": trace,
    "routes": routes,
    "pipeline": pipeline,
    "answers": answers,
}


def seeds(target: str) -> list[bytes]:
    """Where fuzzing begins: the requests and answers of the differential test."""
    requests = [b"".join(case.send) for case in CORPUS]
    match target:
        case "response_head" | "answers":
            found = [case.answer for case in CORPUS]
        case "chunked_body":
            found = [b"\x05" + request.partition(b"\r\n\r\n")[2] for request in requests if b"chunked" in request]
        case "path":
            found = [request.split(b" ")[1] for request in requests if request.count(b" ") > 1]
        case "trace":
            found = re.findall(rb"(?i)trace(?:parent|state): ?([^\r]*)", b"".join(requests))
        case _:
            found = requests
    return sorted({one for one in found if 0 < len(one) <= MAX_BYTES})
