"""Load with faults: upstreams and clients that misbehave in every way, mixed with good traffic, through a real sidecar process.

No wrong, mixed or truncated-but-complete-looking response may ever reach a client; every fault has its status, flag and counter;
memory is bounded and every descriptor comes back.
"""

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.component.faults.load import compare, run_load, settle
from tests.component.faults.proxy import Proxy, proxy
from tests.component.faults.table import FAULTS
from tests.component.faults.upstreams import upstreams

pytestmark = pytest.mark.component

SECONDS = 9.0
CLIENTS = 40
MAX_GROWTH_KB = 40_000


def test_load_with_faults(tmp_path: Path) -> None:
    async def body() -> None:
        async with upstreams() as up, proxy(tmp_path, up) as made:
            descriptors, before = made.descriptors(), made.rss_kb()
            tally = await run_load(made, seed="a", clients=CLIENTS, seconds=SECONDS)
            await settle(made, descriptors)
            after = made.rss_kb()
            endings = await compare(made, up, tally)
            for fault in FAULTS.values():
                assert endings[fault.name][fault.ending] > 0, (fault.name, endings[fault.name])
                assert tally.outcomes[(fault.name, fault.outcome)] > 0, fault.name
            assert tally.outcomes[("good", 200)] > 1000
            assert after - before < MAX_GROWTH_KB, (before, made.peak_kb, after)
            _report(made, before, after, sum(tally.outcomes.values()))

    _run(body())


def _report(made: Proxy, before: int, after: int, requests: int) -> None:
    print(f"requests {requests}, RSS {before} KiB before, {made.peak_kb} at most, {after} after")


def _run(work: "asyncio.Future[None] | object") -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)  # type: ignore[arg-type]
