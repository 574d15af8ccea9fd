"""W3C Trace Context: reading, continuing and making `traceparent`; passing `tracestate` on. Pure; chance comes in as an argument.

Source: https://www.w3.org/TR/trace-context-2/ (Trace Context level 2; version 00, higher versions are read by their first four fields).
"""

import random
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
_SAMPLED, _RANDOM = 1, 2

_MEMBER = re.compile(
    rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
MAX_MEMBERS = 32
MAX_TRACESTATE_BYTES = 1024
"""Of a tracestate that is passed on; at least 512. Source: level 2 s3.3.1.5."""
_LARGE_MEMBER_BYTES = 128


class TraceContext(NamedTuple):
    """Which trace a request belongs to. Ids are lower-case hexadecimal bytes.

    A tuple because it is made for every request with a trace: measured, a third of a frozen dataclass's time.
    """

    trace_id: bytes
    """32 digits, not all zero."""
    span_id: bytes
    """16 digits, not all zero: the span that sent the request."""
    is_sampled: bool
    is_random: bool = False
    """Whoever began the trace vouches for the last 56 bits of its id being random (level 2)."""

    def header(self) -> bytes:
        """The value of a traceparent header, version 00. Flags that version 00 does not know are zero."""
        flags = (_SAMPLED if self.is_sampled else 0) | (_RANDOM if self.is_random else 0)
        return b"00-%b-%b-%02x" % (self.trace_id, self.span_id, flags)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Read a traceparent header; None when it is not valid (a new trace is then begun)."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, digits, rest = found.groups()
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    if version == b"00":
        if rest:
            return None
        flags = int(digits, 16)
        return TraceContext(trace_id, span_id, flags & _SAMPLED != 0, flags & _RANDOM != 0)
    if version == b"ff":
        return None
    # Of a version to come only the sampled flag is known to mean the same.
    return TraceContext(trace_id, span_id, int(digits, 16) & _SAMPLED != 0)


def combine_tracestate(value: bytes) -> bytes:
    """The tracestate to pass on, its headers having been joined by commas; empty for none.

    All of it is dropped when a member breaks the grammar or there are more than 32: half of it could mean something else. Of members
    with the same key the first, which is the newest, stays. What is too long loses whole members: those over 128 bytes first, then from
    the end, which is the oldest.
    """
    members: dict[bytes, bytes] = {}
    for part in value.split(b","):
        member = part.strip(b" \t")
        if not member:
            continue  # empty members are legal
        found = _MEMBER.fullmatch(member)
        if found is None:
            return b""
        members.setdefault(found[1], member)
    if len(members) > MAX_MEMBERS:
        return b""
    return _shortened(list(members.values()))


def _shortened(members: list[bytes]) -> bytes:
    combined = b",".join(members)
    while len(combined) > MAX_TRACESTATE_BYTES:
        large = [at for at, member in enumerate(members) if len(member) > _LARGE_MEMBER_BYTES]
        del members[large[-1] if large else -1]
        combined = b",".join(members)
    return combined


def new_trace(rng: random.Random, *, is_sampled: bool) -> TraceContext:
    """Begin a trace: random ids."""
    return TraceContext(b"%032x" % (rng.getrandbits(128) or 1), new_span_id(rng), is_sampled, True)


def child_of(parent: TraceContext, rng: random.Random) -> TraceContext:
    """The context for a span whose parent is `parent`: same trace, same flags, new span."""
    return TraceContext(parent.trace_id, new_span_id(rng), parent.is_sampled, parent.is_random)


def new_span_id(rng: random.Random) -> bytes:
    """16 hexadecimal digits, not all zero."""
    return b"%016x" % (rng.getrandbits(64) or 1)
