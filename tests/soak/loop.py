"""The loop of a long test."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop


def run_for(work: Coroutine[Any, Any, None], limit_s: float) -> None:
    """Run a test's body on the loop the sidecar uses, for `limit_s` at most."""

    async def guarded() -> None:
        async with asyncio.timeout(limit_s):
            await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())
