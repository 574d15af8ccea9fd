"""Owned tasks: a step that must not be cut in half."""

import asyncio

import pytest

from mesh.net.tasks import run_to_end, spawn

pytestmark = pytest.mark.unit


def test_step_ends_before_its_cancellation_is_raised() -> None:
    async def scenario() -> None:
        started, may_end, has_ended = asyncio.Event(), asyncio.Event(), False

        async def step() -> None:
            nonlocal has_ended
            started.set()
            await may_end.wait()
            has_ended = True

        async with asyncio.TaskGroup() as group:
            task = spawn(group, run_to_end(step()), name="step")
            await started.wait()
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done()
            may_end.set()
        assert task.cancelled()
        assert has_ended

    asyncio.run(scenario())


def test_step_gives_its_result_and_its_error() -> None:
    async def good() -> int:
        return 7

    async def bad() -> int:
        raise ValueError("broken")

    assert asyncio.run(run_to_end(good())) == 7
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(run_to_end(bad()))
