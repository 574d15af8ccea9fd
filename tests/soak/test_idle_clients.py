"""10,000 idle clients held by one process."""

from pathlib import Path

import pytest

from tests.component.idle_clients import MAX_KIB_PER_IDLE_CONNECTION, allow_descriptors, hold
from tests.component.plane_harness import origin
from tests.component.workers_harness import from_file
from tests.soak.loop import run_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

COUNT = 10_000


def test_ten_thousand_idle_clients_are_held_and_answered(tmp_path: Path) -> None:
    allow_descriptors(COUNT + 500)

    async def work() -> None:
        async with origin() as upstream:
            options = ("--max-connections", str(COUNT + 10))
            async with from_file(tmp_path, upstream.port, *options, workers=1) as sidecar:
                cost = await hold(sidecar, COUNT)
                print(f"idle {cost.idle_kib:.2f} KiB, after a request {cost.used_kib:.2f} KiB per connection")
                assert cost.idle_kib <= MAX_KIB_PER_IDLE_CONNECTION

    run_for(work(), 240)
