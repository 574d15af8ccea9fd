import random

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import floats, integers, sampled_from

from controlplane.scheduler.queue import SchedulingQueue
from mesh.backoff import Backoff

pytestmark = pytest.mark.unit


def _queue() -> SchedulingQueue:
    return SchedulingQueue(Backoff(base_s=1.0, cap_s=10.0, jitter=0.0), 300.0, random.Random(1))


def test_higher_priority_first_then_first_come() -> None:
    queue = _queue()
    for key, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queue.add(key, priority)
    assert [queue.pop(0.0) for _ in range(5)] == ["b", "d", "a", "c", None]


def test_parked_pod_waits_for_a_change_and_its_backoff() -> None:
    queue = _queue()
    queue.add("a", 0)
    queue.pop(0.0)
    queue.park("a", 0.0)
    assert queue.pop(100.0) is None
    queue.wake()
    assert queue.pop(100.0) == "a"
    queue.park("a", 100.0)
    queue.wake()
    assert queue.pop(101.9) is None
    assert queue.next_due_s(101.9) == pytest.approx(0.1)
    assert queue.pop(102.0) == "a"


def test_parked_pod_is_tried_again_after_the_flush_time_at_the_latest() -> None:
    queue = _queue()
    queue.add("a", 0)
    queue.pop(0.0)
    queue.park("a", 0.0)
    assert (queue.pop(299.0), queue.pop(300.0)) == (None, "a")


def test_failed_binding_backs_off_longer_each_time() -> None:
    queue = _queue()
    queue.add("a", 0)
    now = 0.0
    for expected in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert queue.pop(now) == "a"
        queue.retry("a", now)
        assert queue.next_due_s(now) == pytest.approx(expected)
        now += expected


def test_stale_timers_of_earlier_turns_do_not_pop_a_pod_twice() -> None:
    queue = _queue()
    queue.add("a", 0)
    queue.pop(0.0)
    queue.park("a", 0.0)
    queue.wake()
    assert queue.pop(10.0) == "a"
    assert queue.pop(400.0) is None


def test_removed_pod_never_comes_back_and_a_new_one_of_the_name_starts_anew() -> None:
    queue = _queue()
    queue.add("a", 0)
    queue.pop(0.0)
    queue.retry("a", 0.0)
    queue.remove("a")
    queue.retry("a", 0.0)
    queue.park("a", 0.0)
    assert (queue.pop(1000.0), len(queue), "a" in queue) == (None, 0, False)
    queue.add("a", 0)
    assert queue.pop(0.0) == "a"


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens, a pod in flight is not handed out again, and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = _queue()
        self.now = 0.0
        self.known: set[str] = set()
        self.in_flight: set[str] = set()

    @rule(key=sampled_from("abc"), priority=integers(0, 2))
    def add(self, key: str, priority: int) -> None:
        if key not in self.in_flight:
            self.queue.add(key, priority)
            self.known.add(key)

    @rule()
    def pop(self) -> None:
        key = self.queue.pop(self.now)
        if key is not None:
            assert key in self.known
            assert key not in self.in_flight
            self.in_flight.add(key)

    @rule(key=sampled_from("abc"), parks=sampled_from([True, False]))
    def give_back(self, key: str, parks: bool) -> None:
        if key in self.in_flight:
            self.in_flight.discard(key)
            (self.queue.park if parks else self.queue.retry)(key, self.now)

    @rule(key=sampled_from("abc"))
    def remove(self, key: str) -> None:
        self.queue.remove(key)
        self.known.discard(key)
        self.in_flight.discard(key)

    @rule()
    def wake(self) -> None:
        self.queue.wake()

    @rule(seconds=floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.known)
        if self.known - self.in_flight:
            due = self.queue.next_due_s(self.now)
            assert due is not None
            assert due <= 300.0


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
