"""The header lines of a request that are new every time: its id, its trace, where it came from, which attempt it is."""

from typing import TYPE_CHECKING

from mesh.telemetry.trace_context import child_of, new_trace

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.templates import RequestTemplate

ATTEMPT_LINE = b"x-envoy-attempt-count: %d\r\n"
_FIRST_ATTEMPT = b"\r\n" + ATTEMPT_LINE % 1


def own_lines(exchange: "Exchange", template: "RequestTemplate") -> bytes:
    """For a shape that is not static: the lines, and the empty line. The same in every attempt. On the short way."""
    if exchange.own_lines and (exchange.attempts > 1 or exchange.stale_retries):
        return exchange.own_lines
    shape = template.shape
    lines = b""
    if shape.adds_request_id:
        exchange.request_id = request_id = exchange.plane.ids.make()
        lines = b"x-request-id: %b\r\n" % request_id
    if shape.adds_trace:
        lines += _trace_line(exchange, template)
    if shape.adds_forwarded_for:
        before = template.head.forwarded_for
        lines += b"x-forwarded-for: %b%b\r\n" % (before + b", " if before else b"", exchange.connection.peer_address)
    exchange.own_lines = lines = lines + b"\r\n"
    return lines


def _trace_line(exchange: "Exchange", template: "RequestTemplate") -> bytes:
    tracing = template.shape.route.runtime.filter.tracing
    assert tracing is not None
    rng = exchange.plane.rng
    parent = template.parent
    if parent is not None:
        exchange.trace = child_of(parent, rng)
    elif rng.random() * 100.0 < tracing.sampling_percent:
        exchange.trace = new_trace(rng, is_sampled=True)
    else:
        # Not sampled: say so, else the next hop would decide again.
        return b"traceparent: %b\r\n" % exchange.plane.ids.unsampled_trace()
    exchange.is_dirty = True
    return b"traceparent: %b\r\n" % exchange.trace.header()


def recount_attempt(wire: bytes, attempts: int) -> bytes:
    """An outgoing head that says which attempt it is, for another one than the first."""
    return wire.replace(_FIRST_ATTEMPT, b"\r\n" + ATTEMPT_LINE % attempts, 1)
