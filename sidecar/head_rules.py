"""What a listener does to a request's head before anything is matched against it. Pure.

A head that has to change is written anew and parsed again, so what follows sees one kind of head only. It happens when a head is seen for
the first time; heads that keep every rule pay one or two comparisons.
"""

from collections.abc import Callable

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import HeadLimits
from mesh.http.path import PathOptions, PathVerdict, normalise_target
from mesh.http.request import RequestHead, parse_request_head
from mesh.http.syntax import MAX_FORWARDS
from mesh.routing.table import Action, DirectResponse, Redirect
from mesh.telemetry.trace_context import TraceContext, combine_tracestate, parse_traceparent
from sidecar.config import HttpFilter, UnderscoreAction

_TRACE = frozenset({b"traceparent", b"tracestate"})
_COUNTED: dict[bytes, Action] = {b"OPTIONS": DirectResponse(status=200), b"TRACE": DirectResponse(status=501)}
"""Methods whose Max-Forwards counts, and our answer when it has run out: a request is not reflected, it may hold secrets.
DEVIATION: Envoy passes Max-Forwards on as it is; RFC 9110 s7.6.2 wants it counted."""
_KNOWN_FLAGS = frozenset({b"00", b"01", b"02", b"03"})
_EDGE_ONLY = frozenset(
    {
        b"x-envoy-attempt-count", b"x-envoy-decorator-operation", b"x-envoy-downstream-service-cluster",
        b"x-envoy-downstream-service-node", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-external-address", b"x-envoy-original-host",
        b"x-envoy-original-path", b"x-envoy-original-url",
    }
)  # fmt: skip
"""Proxies of one mesh say these to each other; from outside nobody may. Source: Envoy, "HTTP header sanitizing".
DEVIATION: Envoy lets x-envoy-attempt-count pass an edge; here it would count against the retries of the mesh."""


class HeadRules:
    """The rules of one HTTP filter."""

    __slots__ = ("_gone_at_edge", "_path", "_underscores", "always")

    def __init__(self, config: HttpFilter) -> None:
        self._path = PathOptions(
            normalize=config.normalize_path, merge_slashes=config.merge_slashes, escaped_slashes=config.escaped_slashes
        )
        self._underscores = config.underscores
        self._gone_at_edge = _gone_at_edge(config)
        self.always = bool(self._path or self._gone_at_edge or self._underscores is not UnderscoreAction.ALLOW)
        """Every head is to be looked at; otherwise those with a trace."""

    def apply(self, head: RequestHead) -> tuple[RequestHead, TraceContext | None, Action | None]:
        """The head to go on with, its trace, and what to do instead of routing it. Raises HttpSyntaxError when it is refused."""
        parent = parse_traceparent(head.traceparent) if head.traceparent is not None else None
        is_legal = _is_legal(head, parent)
        if is_legal and not (self.always or head.kinds & MAX_FORWARDS):
            return head, parent, None
        lines = self._lines(head) if self.always else head.header_lines
        if head.kinds & MAX_FORWARDS and head.method in _COUNTED:
            hops = head.header(b"max-forwards") or b""
            if hops.isdigit() and int(hops) == 0:
                return head, parent, _COUNTED[head.method]
            lines = _with_one_hop_less(lines, hops)
        if not is_legal:
            lines = _with_legal_trace(head, parent, lines)
        verdict, target = PathVerdict.FORWARD, head.target
        if self._path and head.path:
            verdict, target = normalise_target(target, self._path)
            if verdict is PathVerdict.REJECT:
                raise HttpSyntaxError(
                    400, "bad-path", "the path holds an escaped slash or NUL, which is not accepted here"
                )
        if target != head.target or lines is not head.header_lines:
            head = self._anew(head, target, lines)
        action = None
        if verdict is PathVerdict.REDIRECT:
            action = Redirect(path=target.decode("latin-1"), status=307, strip_query=True)
        return head, parent, action

    def _lines(self, head: RequestHead) -> list[bytes]:
        lines = head.header_lines
        if self._underscores is not UnderscoreAction.ALLOW:
            lines = _filtered(lines, lambda name: b"_" in name)
            if lines is not head.header_lines and self._underscores is UnderscoreAction.REJECT:
                raise HttpSyntaxError(
                    400, "underscore-in-name", "a header's name holds an underscore, which is refused here"
                )
        return _filtered(lines, self._gone_at_edge.__contains__) if self._gone_at_edge else lines

    def _anew(self, head: RequestHead, target: bytes, lines: list[bytes]) -> RequestHead:
        """The same request with another target or other lines. An absolute target goes on as its Host."""
        lines = [line for line in lines if line.partition(b":")[0].lower() != b"host"]
        first = b"%b %b HTTP/1.%d" % (head.method, target, head.minor)
        block = b"\r\n".join([first, b"host: " + head.authority, *lines, b"", b""])
        anew = parse_request_head(block, HeadLimits(max_header_count=len(lines) + 1))
        anew.size_bytes = head.size_bytes
        return anew


def _gone_at_edge(config: HttpFilter) -> frozenset[bytes]:
    if not config.use_remote_address:
        return frozenset()
    gone = set(_EDGE_ONLY)
    if not config.preserve_external_request_id and config.generate_request_id:
        gone.add(b"x-request-id")
    if not config.trusted_hops:
        gone.add(b"x-forwarded-proto")
    return frozenset(gone)


def _filtered(lines: list[bytes], is_gone: Callable[[bytes], bool]) -> list[bytes]:
    """Without the lines whose (lower-case) name is to go; the same list if there are none."""
    gone = [line for line in lines if is_gone(line.partition(b":")[0].lower())]
    return [line for line in lines if line not in gone] if gone else lines


def _with_one_hop_less(lines: list[bytes], hops: bytes) -> list[bytes]:
    """Source: RFC 9110 s7.6.2. What is not a number stays."""
    if not hops.isdigit() or len(hops) > 9:
        return lines
    lines = _filtered(lines, b"max-forwards".__eq__)
    return [*lines, b"max-forwards: %d" % (int(hops) - 1)]


def _is_legal(head: RequestHead, parent: TraceContext | None) -> bool:
    """Whether the trace headers may be sent on as they are."""
    traceparent, tracestate = head.traceparent, head.tracestate
    if parent is None or traceparent is None:
        return traceparent is None and tracestate is None
    if traceparent[:3] != b"00-" or traceparent[53:] not in _KNOWN_FLAGS:
        return False
    return tracestate is None or tracestate == combine_tracestate(tracestate) != b""


def _with_legal_trace(head: RequestHead, parent: TraceContext | None, lines: list[bytes]) -> list[bytes]:
    """One valid traceparent and its tracestate, or neither. DEVIATION: Envoy passes on what is not valid."""
    lines = [line for line in lines if line.partition(b":")[0].lower() not in _TRACE]
    if parent is not None:
        lines.append(b"traceparent: " + parent.header())
        tracestate = combine_tracestate(head.tracestate) if head.tracestate is not None else b""
        if tracestate:
            lines.append(b"tracestate: " + tracestate)
    return lines
