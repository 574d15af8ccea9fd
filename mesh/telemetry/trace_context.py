"""W3C Trace Context: reading, continuing and making `traceparent`. Pure; chance comes in as an argument.

Source: https://www.w3.org/TR/trace-context/ (version 00; higher versions are read by their first four fields).
"""

import random
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace a request belongs to. Ids are lower-case hexadecimal bytes."""

    trace_id: bytes
    """32 digits, not all zero."""
    span_id: bytes
    """16 digits, not all zero: the span that sent the request."""
    is_sampled: bool

    def header(self) -> bytes:
        """The value of a traceparent header."""
        return b"00-%b-%b-%b" % (self.trace_id, self.span_id, b"01" if self.is_sampled else b"00")


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Read a traceparent header; None when it is not valid (a new trace is then begun)."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == b"00" and rest):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def new_trace(rng: random.Random, *, is_sampled: bool) -> TraceContext:
    """Begin a trace: random ids."""
    return TraceContext(b"%032x" % (rng.getrandbits(128) or 1), new_span_id(rng), is_sampled)


def child_of(parent: TraceContext, rng: random.Random) -> TraceContext:
    """The context for a span whose parent is `parent`: same trace, same decision, new span."""
    return TraceContext(parent.trace_id, new_span_id(rng), parent.is_sampled)


def new_span_id(rng: random.Random) -> bytes:
    """16 hexadecimal digits, not all zero."""
    return b"%016x" % (rng.getrandbits(64) or 1)
