"""The load with faults, round after round: what holds for seconds must hold for long, with flat memory and every descriptor back."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.component.faults.load import compare, never_read, run_load, settle, upload_to_nobody
from tests.component.faults.proxy import proxy
from tests.component.faults.table import FAULTS, Ending
from tests.component.faults.upstreams import upstreams
from tests.soak.loop import run_for

SECONDS = min(float(os.environ.get("SOAK_SECONDS", "3600")), 600.0)
CLIENTS = 40
ROUNDS = 12
MAX_GROWTH_KB = 5000
"""From the lowest of the third to the sixth round to the lowest of the last four: the first two find the size of caches, series and the
heap, and what the allocator keeps of a peak differs by 10 MB from round to round."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * SECONDS + 300)]


def test_faults_round_after_round(tmp_path: Path) -> None:
    async def work() -> None:
        seen: Counter[str] = Counter()
        samples: list[int] = []
        async with upstreams() as up, proxy(tmp_path, up) as made:
            descriptors = made.descriptors()
            before: Counter[Ending] = Counter()
            for number in range(ROUNDS):
                tally = await run_load(made, seed=f"soak{number}-", clients=CLIENTS, seconds=SECONDS / ROUNDS)
                await settle(made, descriptors)
                endings = await compare(made, up, tally, before)
                for fault in FAULTS.values():
                    seen[fault.name] += endings.get(fault.name, Counter())[fault.ending]
                await never_read(made, clients=100, size=10_000_000)
                await upload_to_nobody(made, clients=50, size=10_000_000)
                await settle(made, descriptors)
                await made.records()  # waits until the rest is written
                os.truncate(made.log, 0)
                before = await made.endings()
                samples.append(made.rss_kb())
                print(f"round {number}: {tally.scenes.total()} scenes, RSS {samples[-1]} KiB, {made.peak_kb} at most")
        assert all(seen[name] for name in FAULTS), seen
        assert min(samples[-4:]) - min(samples[2:6]) < MAX_GROWTH_KB, samples

    run_for(work(), 2 * SECONDS + 250)
