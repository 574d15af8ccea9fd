"""Request and response heads made ready: what is decided about a head is decided once, for all heads of its shape.

Hot path: a head that was seen before costs one look-up (`RequestTemplate` by its bytes). One that is new is parsed, but most of what
follows from it depends on its shape only (method, which kinds of lines it has): that is in a `RequestShape` which its route remembers; for
responses it is a `ResponsePlan`. The bytes themselves are sent on as they came, less the lines that are not for the next hop, plus the
proxy's own.
"""

from typing import TYPE_CHECKING, Final

from mesh.http.request import RequestHead
from mesh.http.syntax import (
    ATTEMPT_COUNT,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED_FOR,
    HOP_BY_HOP,
    IDENTITY,
    PROXY_HINT,
    TRACEPARENT,
    TRACESTATE,
    TRANSFER_ENCODING,
    UPGRADE,
    without,
)
from mesh.resilience.retry import IDEMPOTENT_METHODS
from mesh.routing.rewrite import mutate_lines
from mesh.telemetry.trace_context import TraceContext
from sidecar.own_lines import ATTEMPT_LINE
from sidecar.rewriting import rewrite_head
from sidecar.route_limits import expected_line

if TYPE_CHECKING:
    from sidecar.endpoint import EndpointState
    from sidecar.runtime import Branch, RouteRuntime
    from sidecar.stats import ResultStats

MAX_SHAPES = 256
"""Per route; a table of 18 kinds has more, but clients use few."""
_BODY_METHODS = frozenset({b"POST", b"PUT", b"PATCH"})
"""A request of these without a body says so (RFC 9110 s8.6)."""
_SPECIAL_METHODS = frozenset({b"HEAD", b"CONNECT"})
"""What a response means depends on these."""
_ATTEMPT_COUNT = frozenset({b"x-envoy-attempt-count"})
_PROTO_HTTP = b"x-forwarded-proto: http"
NO_WIRES: Final[dict[int, bytes]] = {}
"""Of templates that are not kept; stays empty."""
_NEVER_FORWARDED = HOP_BY_HOP | IDENTITY | CONNECTION | UPGRADE | EXPECT | PROXY_HINT
_BODY_KINDS = CONTENT_LENGTH | TRANSFER_ENCODING
_SHAPELESS = CONNECTION | UPGRADE | EXPECT
"""Kinds whose values decide: heads with them share no shape."""


def without_line(block: bytes, line: bytes) -> bytes:
    """A head without one of its header lines."""
    return block.replace(b"\r\n" + line + b"\r\n", b"\r\n", 1)


class RequestShape:
    """What follows from a route, a method and the kinds of header lines. Read-only."""

    __slots__ = (
        "adds_forwarded_for",
        "adds_request_id",
        "adds_trace",
        "counts_attempts",
        "drops",
        "end",
        "has_body",
        "is_idempotent",
        "is_plain",
        "is_quick",
        "is_simple",
        "is_static",
        "is_verbatim",
        "keeps_tracestate",
        "method",
        "route",
        "trace",
        "upgrade",
    )

    def __init__(self, head: RequestHead, route: "RouteRuntime", parent: TraceContext | None) -> None:
        self.route = route
        self.method = method = head.method
        self.has_body = has_body = head.content_length != 0
        self.upgrade = head.upgrade
        if head.upgrade and head.upgrade.decode("latin-1") not in route.upgrades:
            self.upgrade = b""
        self.trace = 0 if parent is None else 2 if parent.is_sampled else 1
        """What the request brought: no trace that counts, one that is not sampled, one that is."""
        self.adds_trace = route.is_traced and (parent is None or parent.is_sampled)
        self.adds_request_id = route.generates_ids and head.request_id is None
        self.adds_forwarded_for = route.adds_forwarded_for
        self.counts_attempts = route.counts_attempts
        self.is_static = not (self.adds_request_id or self.adds_trace or route.adds_forwarded_for)
        self.is_idempotent = method in IDEMPOTENT_METHODS or head.has_idempotency_key
        self.is_plain = is_plain = (
            head.keep_alive
            and head.minor == 1
            and method not in _SPECIAL_METHODS
            and not self.upgrade
            and not route.is_special
        )
        """Whether the response may take the short way: nothing about this request needs a second look."""
        self.is_quick = is_plain and not has_body and (self.is_idempotent or route.repeats_all)
        """Whether the request itself may take the short way: complete, and safe on any kept connection."""
        # Without the traceparent it belongs to it means nothing (Trace Context s3.3.1).
        self.keeps_tracestate = parent is not None or not self.adds_trace
        self.is_verbatim = head.is_verbatim
        self.is_simple = not (self.trace or has_body or head.kinds & (_SHAPELESS | _BODY_KINDS))
        """Method and kinds of lines alone decide."""
        self.drops = self._drops()
        self.end = self._end(head)
        """What is sent after the lines that came; with the terminating empty line when `is_static`."""

    def _drops(self) -> int:
        """The kinds of lines that are not sent on."""
        drops = _NEVER_FORWARDED
        if self.adds_trace:
            drops |= TRACEPARENT
        if not self.keeps_tracestate:
            drops |= TRACESTATE
        if self.adds_forwarded_for:
            drops |= FORWARDED_FOR | ATTEMPT_COUNT  # an edge believes nobody
        if self.counts_attempts:
            drops |= ATTEMPT_COUNT
        return drops

    def _end(self, head: RequestHead) -> bytes:
        lines = [line for line in (expected_line(self.route),) if line]
        if head.forwarded_proto is None:
            lines.append(_PROTO_HTTP)
        if head.method in _BODY_METHODS and not (self.has_body or head.kinds & CONTENT_LENGTH):
            lines.append(b"content-length: 0")
        if self.counts_attempts:
            lines.append(ATTEMPT_LINE[:-2] % 1)
        if self.upgrade:
            lines += [b"connection: upgrade", b"upgrade: " + self.upgrade]
        if self.is_static:
            lines.append(b"")
        return b"".join([line + b"\r\n" for line in lines])


def shape_of(head: RequestHead, route: "RouteRuntime", parent: TraceContext | None) -> RequestShape:
    """The shape of a head; most are known."""
    kinds = head.kinds
    if kinds & _SHAPELESS or not head.is_verbatim:
        return RequestShape(head, route, parent)
    shape = route.last_shapes.get(kinds)
    trace = 0 if parent is None else 2 if parent.is_sampled else 1
    has_body = head.content_length != 0
    if shape is not None and shape.method == head.method and shape.has_body is has_body and shape.trace == trace:
        return shape
    key = (head.method, kinds, has_body, trace)
    shape = route.shapes.get(key)
    if shape is None:
        shape = RequestShape(head, route, parent)
        if len(route.shapes) < MAX_SHAPES:
            route.shapes[key] = shape
    if len(route.last_shapes) < MAX_SHAPES:
        route.last_shapes[kinds] = shape
    return shape


class RequestTemplate:
    """A request head, routed, with its outgoing head ready but for what is new in every request."""

    __slots__ = ("head", "parent", "shape", "size_bytes", "wires")

    def __init__(self, head: RequestHead, route: "RouteRuntime", parent: TraceContext | None = None) -> None:
        self.head = head
        self.size_bytes = head.size_bytes
        if not route.is_traced:
            parent = None
        self.parent: TraceContext | None = parent
        shape = route.last_shapes.get(head.kinds) if parent is None else None
        if shape is None or not (shape.is_simple and head.is_verbatim and shape.method == head.method):
            shape = shape_of(head, route, parent)
        self.shape: RequestShape = shape
        self.wires: dict[int, bytes] = NO_WIRES
        """Outgoing heads by the branch's index, for a template that is kept (see `keep`)."""

    def keep(self) -> None:
        """It will be used again: remember the outgoing heads too."""
        self.wires = {}

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def route(self) -> "RouteRuntime":
        return self.shape.route

    @property
    def has_body(self) -> bool:
        return self.shape.has_body

    @property
    def is_idempotent(self) -> bool:
        return self.shape.is_idempotent

    @property
    def is_plain(self) -> bool:
        return self.shape.is_plain

    @property
    def upgrade(self) -> bytes:
        """The protocol that the client may switch to; empty: none."""
        return self.shape.upgrade

    def wire(self, branch: "Branch") -> bytes:
        """The outgoing head for a branch: complete when the shape is static, else without the terminating empty line."""
        shape = self.shape
        head = self.head
        if not (shape.is_verbatim and branch.is_verbatim):
            wire = self._build_anew(branch)
        elif head.kinds & shape.drops:
            wire = self._without_dropped() + shape.end
        else:
            wire = head.block[:-2] + shape.end
        wires = self.wires
        if wires is not NO_WIRES:
            wires[branch.index] = wire
        return wire

    def _without_dropped(self) -> bytes:
        wire = self.head.block[:-2]
        drops = self.shape.drops
        for kind, line, _ in self.head.special:
            if kind & drops:
                wire = without_line(wire, line)
        return wire

    def _build_anew(self, branch: "Branch") -> bytes:
        """The outgoing head for a branch, line by line."""
        head, shape = self.head, self.shape
        compiled = shape.route.compiled
        headers = head.kept_lines
        if shape.route.rewrites and compiled is not None and head.path:
            new = rewrite_head(compiled, branch.index, head)
            lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (head.method, new.target, new.authority), *new.lines]
            headers = without(headers, new.names) if new.names else headers
        else:
            lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (head.method, head.target, head.authority)]
        own = self._own_lines()
        if shape.counts_attempts or shape.adds_forwarded_for:
            headers = without(headers, _ATTEMPT_COUNT)
        if branch.request_mutations:
            headers = mutate_lines([*headers, *own], branch.request_mutations)
        else:
            lines += own
        lines += headers
        if shape.counts_attempts:
            lines.append(ATTEMPT_LINE[:-2] % 1)
        if head.content_length:
            lines.append(
                b"content-length: %d" % head.content_length if not head.chunked else b"transfer-encoding: chunked"
            )
        elif head.method in _BODY_METHODS:
            lines.append(b"content-length: 0")
        if shape.upgrade:
            lines.append(b"connection: upgrade\r\nupgrade: " + shape.upgrade)
        lines.append(b"\r\n" if shape.is_static else b"")
        return b"\r\n".join(lines)

    def _own_lines(self) -> list[bytes]:
        """The headers a proxy is responsible for, as far as they are the same for every such request."""
        head, shape = self.head, self.shape
        expected = expected_line(shape.route)
        lines = [expected] if expected else []
        lines.append(_PROTO_HTTP if head.forwarded_proto is None else b"x-forwarded-proto: " + head.forwarded_proto)
        if head.forwarded_for is not None and not shape.adds_forwarded_for:
            lines.append(b"x-forwarded-for: " + head.forwarded_for)
        if head.request_id is not None:
            lines.append(b"x-request-id: " + head.request_id)
        if head.traceparent is not None and not shape.adds_trace:
            lines.append(b"traceparent: " + head.traceparent)
        if head.tracestate is not None and shape.keeps_tracestate:
            lines.append(b"tracestate: " + head.tracestate)
        return lines


class ResponsePlan:
    """What follows from a response's status line and its special lines, for one branch."""

    __slots__ = ("drops", "end", "is_verbatim", "length", "results", "status")

    def __init__(self, *, status: int, length: int, is_verbatim: bool, drops: tuple[bytes, ...], end: bytes) -> None:
        self.status = status
        self.results: dict[EndpointState, ResultStats] = {}
        """Where such responses are counted, by endpoint."""
        self.length = length
        """Of the body."""
        self.is_verbatim = is_verbatim
        """The head is sent on as it came, without `drops` and with `end`."""
        self.drops = drops
        self.end = end


class ResponseTemplate:
    """A response head ready to be sent on."""

    __slots__ = ("plan", "size_bytes", "wire")

    def __init__(self, wire: bytes, plan: ResponsePlan, size_bytes: int) -> None:
        self.wire = wire
        """Without the terminating empty line."""
        self.plan = plan
        self.size_bytes = size_bytes
        """Head and body as they came."""
