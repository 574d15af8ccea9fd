"""W3C trace context."""

import random

import pytest

from mesh.telemetry.trace_context import child_of, new_trace, parse_traceparent

pytestmark = pytest.mark.unit

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (b"00-" + TRACE + b"-" + SPAN + b"-01", True),
        (b"00-" + TRACE + b"-" + SPAN + b"-00", False),
        (b"00-" + TRACE + b"-" + SPAN + b"-03", True),
        (b"cc-" + TRACE + b"-" + SPAN + b"-01-what-the-future-brings", True),
    ],
)
def test_valid(value: bytes, sampled: bool) -> None:
    found = parse_traceparent(value)
    assert found is not None
    assert (found.trace_id, found.span_id, found.is_sampled) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00-" + TRACE + b"-" + SPAN,
        b"00-" + TRACE + b"-" + SPAN + b"-01-extra",
        b"ff-" + TRACE + b"-" + SPAN + b"-01",
        b"00-" + TRACE.upper() + b"-" + SPAN + b"-01",
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE[1:] + b"-" + SPAN + b"-01",
    ],
)
def test_invalid(value: bytes) -> None:
    assert parse_traceparent(value) is None


def test_what_is_made_is_valid_and_children_stay_in_the_trace() -> None:
    rng = random.Random(1)
    root = new_trace(rng, is_sampled=True)
    assert parse_traceparent(root.header()) == root
    child = child_of(root, rng)
    assert (child.trace_id, child.is_sampled) == (root.trace_id, True)
    assert child.span_id != root.span_id
