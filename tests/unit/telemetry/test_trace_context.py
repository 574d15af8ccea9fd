"""W3C Trace Context level 2, rule by rule."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.telemetry.trace_context import (
    MAX_MEMBERS,
    MAX_TRACESTATE_BYTES,
    child_of,
    combine_tracestate,
    new_trace,
    parse_traceparent,
)

pytestmark = pytest.mark.unit

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
BOTH = TRACE + b"-" + SPAN


@pytest.mark.parametrize(
    ("value", "sent_on"),
    [
        (b"00-" + BOTH + b"-00", b"00"),
        (b"00-" + BOTH + b"-01", b"01"),
        (b"00-" + BOTH + b"-02", b"02"),
        (b"00-" + BOTH + b"-03", b"03"),
        # Flags that nobody knows yet are not passed on.
        (b"00-" + BOTH + b"-ff", b"03"),
        (b"00-" + BOTH + b"-fc", b"00"),
        # A later version is read as far as it is known, and goes on as ours.
        (b"01-" + BOTH + b"-01", b"01"),
        (b"cc-" + BOTH + b"-01", b"01"),
        (b"cc-" + BOTH + b"-01-what-the-future-brings", b"01"),
        (b"cc-" + BOTH + b"-01-", b"01"),
        (b"cc-" + BOTH + b"-03", b"01"),
        (b"fe-" + BOTH + b"-00", b"00"),
    ],
)
def test_valid(value: bytes, sent_on: bytes) -> None:
    found = parse_traceparent(value)
    assert found is not None
    assert (found.trace_id, found.span_id) == (TRACE, SPAN)
    assert found.header() == b"00-" + BOTH + b"-" + sent_on


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"00-" + BOTH,
        b"00-" + BOTH + b"-",
        b"00-" + BOTH + b"-1",
        b"00-" + BOTH + b"-011",
        b"00-" + BOTH + b"-01-",
        b"00-" + BOTH + b"-01-extra",
        b"00-" + BOTH + b"-01 ",
        b" 00-" + BOTH + b"-01",
        b"ff-" + BOTH + b"-01",
        b"ff-" + BOTH + b"-01-more",
        b"FE-" + BOTH + b"-01",
        b"0-" + BOTH + b"-01",
        b"000-" + BOTH + b"-01",
        b"0x-" + BOTH + b"-01",
        b"cc-" + BOTH + b"-01.more",
        b"cc-" + BOTH + b"-01more",
        b"cc-" + BOTH,
        b"00-" + TRACE.upper() + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + SPAN.upper() + b"-01",
        b"00-" + BOTH + b"-0A",
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"cc-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE[1:] + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"0-" + SPAN + b"-01",
        b"00-" + TRACE[:-1] + b"g-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + SPAN[1:] + b"-01",
        b"00_" + TRACE + b"_" + SPAN + b"_01",
        b"00-" + BOTH + b"-01,00-" + BOTH + b"-01",
        b"00-" + BOTH + b"-01\n",
    ],
)
def test_invalid(value: bytes) -> None:
    assert parse_traceparent(value) is None


def test_what_is_made_is_valid_and_children_stay_in_the_trace() -> None:
    rng = random.Random(1)
    root = new_trace(rng, is_sampled=True)
    assert root.is_random
    assert root.header().endswith(b"-03")
    assert parse_traceparent(root.header()) == root
    for parent in (root, parse_traceparent(b"00-" + BOTH + b"-00")):
        assert parent is not None
        child = child_of(parent, rng)
        assert (child.trace_id, child.is_sampled, child.is_random) == (
            parent.trace_id,
            parent.is_sampled,
            parent.is_random,
        )
        assert child.span_id != parent.span_id
        assert parse_traceparent(child.header()) == child


KEY_256 = b"k" * 256
VALUE_256 = b"v" * 256

PASSED_ON = [
    (b"", b""),
    (b"a=1", b"a=1"),
    (b"a=1,b=2", b"a=1,b=2"),
    (b"a=1 , \tb=2\t", b"a=1,b=2"),
    (b"a=1,,b=2", b"a=1,b=2"),
    (b",", b""),
    (b" ,\t, a=1,", b"a=1"),
    # Keys: lower case or a digit first; then also _ - * / @.
    (b"0=1", b"0=1"),
    (b"a0_-*/@b=1", b"a0_-*/@b=1"),
    (b"tenant@system=1", b"tenant@system=1"),
    (b"a@b@c=1", b"a@b@c=1"),
    (KEY_256 + b"=1", KEY_256 + b"=1"),
    # Values: printable, no comma, no equals sign, no space at the end.
    (b"a=!\"#$%&'()*+-./09:;<>?@AZ[\\]^_`az{|}~", b"a=!\"#$%&'()*+-./09:;<>?@AZ[\\]^_`az{|}~"),
    (b"a= 1", b"a= 1"),
    (b"a=1 2", b"a=1 2"),
    (b"a=" + VALUE_256, b"a=" + VALUE_256),
    # The first of a key is the newest.
    (b"a=1,b=2,a=3", b"a=1,b=2"),
]


@pytest.mark.parametrize(("value", "want"), PASSED_ON, ids=range(len(PASSED_ON)))
def test_state_is_passed_on(value: bytes, want: bytes) -> None:
    assert combine_tracestate(value) == want


DROPPED = [
    b"a", b"=1", b"a=", b"a= ", b"A=1", b"_a=1", b"-a=1", b"@a=1", b"*=1", b"a b=1", b"a =1", b"a=1=2", b"a==1", b"a.b=1", b"a:b=1",
    b"a=\xe4", b"a=1\t2", b"a=\x7f", b"k" * 257 + b"=1", b"a=" + b"v" * 257, b"good=1,Bad=2", b"a=1;b=2,c", b"a=1\r",
]  # fmt: skip


@pytest.mark.parametrize("value", DROPPED, ids=range(len(DROPPED)))
def test_state_that_breaks_the_grammar_is_dropped_whole(value: bytes) -> None:
    assert combine_tracestate(value) == b""


def test_state_of_more_than_32_members_is_dropped() -> None:
    members = [b"k%d=v" % n for n in range(MAX_MEMBERS + 1)]
    assert combine_tracestate(b",".join(members[:-1])) == b",".join(members[:-1])
    assert combine_tracestate(b",".join(members)) == b""


def test_long_state_loses_whole_members_the_large_and_the_old_first() -> None:
    large = b"large=" + b"x" * 200
    small = [b"k%02d=%b" % (n, b"y" * 60) for n in range(16)]
    state = combine_tracestate(b",".join([small[0], large, *small[1:]]))
    assert state == b",".join(small[:15])
    assert 512 <= len(state) <= MAX_TRACESTATE_BYTES
    assert combine_tracestate(b",".join([large, *small[:10]])) == b",".join([large, *small[:10]])


@given(value=st.binary(max_size=80))
def test_no_bytes_make_the_readers_fail(value: bytes) -> None:
    parse_traceparent(value)
    combine_tracestate(value)


_KEYS = st.text("abz09_-*/@", min_size=1, max_size=6).filter(lambda key: key[0] in "abz09")
_VALUES = st.text("abAZ !~", min_size=1, max_size=80).map(lambda value: value + "x")


@given(members=st.lists(st.tuples(_KEYS, _VALUES), max_size=32))
def test_what_is_passed_on_is_legal_and_in_order(members: list[tuple[str, str]]) -> None:
    value = ",".join(f"{key}={item}" for key, item in members).encode()
    state = combine_tracestate(value)
    assert combine_tracestate(state) == state
    assert len(state) <= MAX_TRACESTATE_BYTES
    kept = state.split(b",") if state else []
    given_members = value.split(b",")
    assert sorted(kept, key=given_members.index) == kept
    assert len({member.partition(b"=")[0] for member in kept}) == len(kept)


@given(flags=st.integers(0, 255), version=st.integers(0, 254))
def test_any_version_and_flags_go_on_as_version_00(flags: int, version: int) -> None:
    found = parse_traceparent(b"%02x-%b-%02x" % (version, BOTH, flags))
    assert found is not None
    known = flags & (3 if version == 0 else 1)
    assert found.header() == b"00-%b-%02x" % (BOTH, known)
