"""Idle clients cost little and stay; tests/soak has 10,000 of them."""

from pathlib import Path

import pytest

from tests.component.idle_clients import MAX_KIB_PER_IDLE_CONNECTION, allow_descriptors, hold
from tests.component.plane_harness import origin, run
from tests.component.workers_harness import from_file

pytestmark = pytest.mark.component

COUNT = 2000


def test_two_thousand_idle_clients_are_held_and_answered(tmp_path: Path) -> None:
    allow_descriptors(COUNT + 500)

    async def work() -> None:
        async with origin() as upstream:
            options = ("--max-connections", str(COUNT + 10))
            async with from_file(tmp_path, upstream.port, *options, workers=1) as sidecar:
                cost = await hold(sidecar, COUNT)
                print(cost)
                assert cost.idle_kib <= MAX_KIB_PER_IDLE_CONNECTION

    run(work())
