"""Tasks with an owner: a task is spawned into a group, and one that fails takes its owner with it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def spawn(owner: asyncio.TaskGroup, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start `work` as a task of `owner`. An exception in it ends the group; cancelling the group cancels it."""
    return owner.create_task(work, name=name)


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait until it has ended. Its own cancellation is not an error; any other exception is raised."""
    if task.done():
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await a short step that must not be cut in half. A cancellation meanwhile is raised after the step has ended."""
    step = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        if not step.done():
            await asyncio.wait([step])
        raise
