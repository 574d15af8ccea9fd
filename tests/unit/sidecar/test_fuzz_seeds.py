"""The seeds of the long fuzzing runs hold for every target: a quick pass through what `make soak` starts from."""

import pytest

from tests.soak.fuzz_targets import TARGETS, seeds

pytestmark = pytest.mark.unit

MAX_SEED_BYTES = 300


@pytest.mark.parametrize("target", TARGETS)
def test_target_holds_for_its_seeds(target: str) -> None:
    found = seeds(target)
    assert len(found) > 5
    for seed in found:
        if len(seed) <= MAX_SEED_BYTES:
            TARGETS[target](seed)
            TARGETS[target](seed[: len(seed) // 2])
