"""The deadline wheel, turned by hand."""

import asyncio
from collections.abc import Callable

import pytest

from sidecar.timers import NEVER, DeadlineWheel

pytestmark = pytest.mark.unit


class Item:
    def __init__(self, deadline: float, after: Callable[[float], float] = lambda now: NEVER) -> None:
        self.deadline = deadline
        self.wheel_at = NEVER
        self.fired: list[float] = []
        self.after = after

    def on_deadline(self, now: float) -> None:
        self.fired.append(now)
        self.deadline = self.after(now)


def turned(work: Callable[[DeadlineWheel], None]) -> None:
    loop = asyncio.new_event_loop()
    wheel = DeadlineWheel(loop, now=lambda: 100.0)
    try:
        work(wheel)
    finally:
        wheel.close()
        loop.close()


def test_deadline_fires_once_and_not_early() -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(100.5)
        wheel.watch(item, 100.0)
        wheel.turn(100.49)
        assert item.fired == []
        wheel.turn(100.55)
        assert len(item.fired) == 1
        wheel.turn(110.0)
        assert len(item.fired) == 1

    turned(work)


def test_deadline_that_moved_away_is_looked_at_again_later() -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(100.5)
        wheel.watch(item, 100.0)
        item.deadline = 101.0
        wheel.turn(100.6)
        assert item.fired == []
        wheel.turn(101.1)
        assert len(item.fired) == 1

    turned(work)


def test_deadline_that_moved_nearer_needs_one_more_watch() -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(103.0)
        wheel.watch(item, 100.0)
        item.deadline = 100.2
        assert item.deadline < item.wheel_at
        wheel.watch(item, 100.0)
        wheel.turn(100.3)
        assert len(item.fired) == 1
        wheel.turn(104.0)
        assert len(item.fired) == 1

    turned(work)


def test_far_deadline_is_reached_in_steps() -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(112.0)
        wheel.watch(item, 100.0)
        for now in (104.1, 108.2, 111.9):
            wheel.turn(now)
            assert item.fired == []
        wheel.turn(112.1)
        assert len(item.fired) == 1

    turned(work)


@pytest.mark.parametrize("early", [0.0, 0.0005, 0.005, 0.0077])
def test_turn_that_comes_too_early_ends_and_the_next_one_fires(early: float) -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(100.1)
        wheel.watch(item, 100.0)
        due = item.wheel_at
        item.deadline = due - early / 2
        wheel.turn(due - early)
        wheel.turn(due + 0.001)
        assert len(item.fired) == 1

    turned(work)


def test_handler_may_set_the_next_deadline() -> None:
    def work(wheel: DeadlineWheel) -> None:
        item = Item(100.1, after=lambda now: now + 0.1)
        wheel.watch(item, 100.0)
        for step in range(1, 8):
            wheel.turn(100.0 + step * 0.15)
        assert len(item.fired) >= 5

    turned(work)
