"""Frames between the processes of one proxy, restarts, and the resources that are handed over."""

import random
import struct

import pytest
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.endpoint import LoadAssignment
from mesh.xds.type_urls import CLUSTER, ENDPOINT
from sidecar.decode.assembly import Resources
from sidecar.workers.errors import FrameError
from sidecar.workers.messages import (
    MAX_FRAME_BYTES,
    MAX_STAGE_BYTES,
    Commit,
    Done,
    FrameReader,
    Prepare,
    Question,
    Stage,
    answer,
    frame,
    question,
)
from sidecar.workers.restarts import BACKOFF, STABLE_AFTER_S, RestartPlan
from sidecar.workers.staging import RawResources, difference

pytestmark = pytest.mark.unit

MESSAGES: list[Question] = [
    Stage([("t", "n", b"\x00\xff"), ("t", "m", None)], [("t", "gone")]),
    Prepare(7, {"0.0.0.0:0 web": 31000}),
    Commit(8),
]


@given(st.lists(st.integers(1, 40)))
def test_frames_are_the_same_however_they_are_cut(sizes: list[int]) -> None:
    wire = b"".join(frame(one) for one in MESSAGES)
    reader, seen, at = FrameReader(), [], 0
    for size in [*sizes, len(wire)]:
        seen += [question(body) for body in reader.feed(wire[at : at + size])]
        at += size
    assert seen == MESSAGES


def test_too_long_frame_is_refused_on_both_sides() -> None:
    with pytest.raises(FrameError, match="more than"):
        frame(Done(1, body=bytes(MAX_FRAME_BYTES + 1)))
    with pytest.raises(FrameError, match="more than"):
        FrameReader().feed(struct.pack(">I", MAX_FRAME_BYTES + 1))


@given(st.binary(max_size=40))
def test_garbage_is_an_error_of_ours(data: bytes) -> None:
    for read in (question, answer):
        try:
            read(data)
        except FrameError:
            pass


def test_worker_that_keeps_ending_is_started_ever_later() -> None:
    plan = RestartPlan(2, random.Random(1))
    assert plan.due(0.0) == [0, 1]
    plan.on_started(0, 100, 0.0)
    plan.on_started(1, 200, 0.0)
    assert (plan.due(1e9), plan.next_due(), plan.pids) == ([], None, [100, 200])
    now, delays = 0.0, []
    for pid in range(100, 112):
        index, delay_s = plan.on_ended(pid, now) or (-1, 0.0)
        assert (index, plan.pid_of(0), plan.next_due()) == (0, None, now + delay_s)
        assert plan.due(now + delay_s) == [0]
        now += delay_s
        delays.append(delay_s)
        plan.on_started(0, pid + 1, now)
    assert delays[0] <= BACKOFF.base_s
    assert BACKOFF.cap_s / 2 <= delays[-1] <= BACKOFF.cap_s
    assert plan.on_ended(112, now + STABLE_AFTER_S + 1) is not None
    assert plan.next_due() is not None
    assert plan.next_due() <= now + STABLE_AFTER_S + 1 + BACKOFF.base_s  # type: ignore[operator]
    assert plan.on_ended(99999, now) is None


def test_worker_that_can_not_be_started_is_due_later() -> None:
    plan = RestartPlan(1, random.Random(1))
    delay_s = plan.on_not_started(0, 10.0)
    assert 0 < delay_s <= BACKOFF.base_s
    assert (plan.due(10.0), plan.due(10.0 + delay_s), plan.pids) == ([], [0], [])
    assert max(plan.on_not_started(0, 1000.0 * n) for n in range(20)) > BACKOFF.cap_s / 2


RAW = st.dictionaries(st.tuples(st.sampled_from("xy"), st.sampled_from("abcd")), st.none() | st.binary(max_size=3))


@given(RAW, RAW)
def test_difference_makes_the_new_of_the_old(
    old: dict[tuple[str, str], bytes | None], new: dict[tuple[str, str], bytes | None]
) -> None:
    held = dict(old)
    for stage in difference(old, new):
        for type_url, name in stage.drop:
            del held[type_url, name]
        for type_url, name, raw in stage.put:
            assert (type_url, name) not in old or old[type_url, name] != raw
            held[type_url, name] = raw
    assert held == new


def test_large_configuration_goes_in_pieces() -> None:
    new = {("t", str(n)): bytes(1 << 20) for n in range(10)}
    stages = list(difference({}, new))
    assert len(stages) > 2
    assert all(len(frame(stage)) < MAX_STAGE_BYTES + (2 << 20) for stage in stages)


def test_rolled_back_resources_are_those_in_force() -> None:
    raw = RawResources()
    first, second = any_pb2.Any(value=b"1"), any_pb2.Any(value=b"2")
    staged = Resources(endpoints={"e": LoadAssignment()})
    staged.clusters["c"] = None  # type: ignore[assignment]  # only names count here
    raw.put(ENDPOINT, "e", second)
    raw.put(CLUSTER, "unwanted", second)
    raw.remove(ENDPOINT, "e")
    raw.put(CLUSTER, "c", first)
    good = raw.of(staged)
    assert good == {(CLUSTER, "c"): first.SerializeToString(), (ENDPOINT, "e"): None}
    raw.put(CLUSTER, "c", second)
    assert raw.of(staged)[CLUSTER, "c"] == second.SerializeToString()
    raw.roll_back(good)
    assert raw.of(staged) == good
