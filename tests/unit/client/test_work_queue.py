"""The work queue: no key twice, no key with two workers, delays and back-off."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.backoff import Backoff
from mesh.client.work_queue import QueueClosedError, WorkQueue

pytestmark = pytest.mark.unit


@dataclass
class _Call:
    at_s: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class _Timers:
    """A loop's `call_later` whose time a test turns by hand."""

    now_s: float = 0.0
    calls: list[_Call] = field(default_factory=list)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> _Call:
        call = _Call(self.now_s + delay, callback)
        self.calls.append(call)
        return call

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for call in [c for c in self.calls if c.at_s <= self.now_s]:
            self.calls.remove(call)
            if not call.is_cancelled:
                call.callback()


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_key_added_twice_comes_once() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in ("a", "b", "a"):
            queue.add(key)
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        assert len(queue) == 0

    _run(scenario())


def test_key_added_while_worked_on_comes_again_only_after_done() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        assert len(queue) == 0
        queue.done(key)
        assert await queue.get() == "a"
        queue.done("a")
        assert len(queue) == 0

    _run(scenario())


def test_delayed_key_comes_at_the_earliest_time_asked() -> None:
    async def scenario() -> None:
        timers = _Timers()
        queue: WorkQueue[str] = WorkQueue(call_later=timers.call_later)
        queue.add_after("a", 5.0)
        queue.add_after("a", 1.0)
        queue.add_after("a", 9.0)
        timers.advance(0.9)
        assert len(queue) == 0
        timers.advance(0.2)
        assert await queue.get() == "a"
        queue.done("a")
        timers.advance(20.0)
        assert len(queue) == 0

    _run(scenario())


def test_adding_now_replaces_the_delay() -> None:
    async def scenario() -> None:
        timers = _Timers()
        queue: WorkQueue[str] = WorkQueue(call_later=timers.call_later)
        queue.add_after("a", 5.0)
        queue.add("a")
        queue.done(await queue.get())
        timers.advance(6.0)
        assert len(queue) == 0

    _run(scenario())


def test_back_off_grows_per_key_until_forgotten() -> None:
    async def scenario() -> None:
        timers = _Timers()
        backoff = Backoff(base_s=1.0, cap_s=3.0, jitter=0.0)
        queue: WorkQueue[str] = WorkQueue(backoff=backoff, call_later=timers.call_later)
        for expected_s in (1.0, 2.0, 3.0, 3.0):
            queue.add_rate_limited("a")
            assert timers.calls[-1].at_s - timers.now_s == pytest.approx(expected_s)
            timers.advance(expected_s)
            queue.done(await queue.get())
        assert queue.failures("a") == 4
        queue.forget("a")
        queue.add_rate_limited("a")
        assert timers.calls[-1].at_s - timers.now_s == pytest.approx(1.0)

    _run(scenario())


def test_close_ends_waiting_workers_and_forgets_delayed_keys() -> None:
    async def scenario() -> None:
        timers = _Timers()
        queue: WorkQueue[str] = WorkQueue(call_later=timers.call_later)
        queue.add_after("late", 1.0)

        async def work() -> str:
            try:
                return await queue.get()
            except QueueClosedError:
                return "closed"

        workers = [asyncio.get_running_loop().create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        assert await asyncio.gather(*workers) == ["closed"] * 3
        timers.advance(2.0)
        queue.add("a")
        assert len(queue) == 0

    _run(scenario())


def test_cancelled_getter_hands_its_wake_up_on() -> None:
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        first = asyncio.get_running_loop().create_task(queue.get())
        second = asyncio.get_running_loop().create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        first.cancel()
        assert await asyncio.wait_for(second, 1.0) == "a"
        assert first.cancelled()

    _run(scenario())


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.integers(0, 3)), max_size=60))
def test_no_key_is_lost_doubled_or_shared(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        queue: WorkQueue[int] = WorkQueue()
        wanted: set[int] = set()
        working: set[int] = set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                wanted.add(key)
            elif step == "get" and len(queue):
                got = await queue.get()
                assert got in wanted
                assert got not in working
                wanted.discard(got)
                working.add(got)
            elif step == "done" and key in working:
                queue.done(key)
                working.discard(key)
            assert len(queue) == len(wanted - working)

    _run(scenario())
