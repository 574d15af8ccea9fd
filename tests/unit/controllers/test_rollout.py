"""The arithmetic of rolling updates, simulated to the end: availability and surge bounds hold at every step."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.controllers.rollout import Limits, SetSize, next_new_size, next_old_sizes, scaled_sizes
from mesh.api.apps import DeploymentSpec

pytestmark = pytest.mark.unit


def _set(name: str, replicas: int, available: int, created_at: float = 0.0, max_replicas: int = 0) -> SetSize:
    return SetSize(name=name, replicas=replicas, available=available, created_at=created_at, max_replicas=max_replicas)


def _limits(replicas: int, surge: int | str, unavailable: int | str, type_: str = "RollingUpdate") -> Limits:
    update = {"maxSurge": surge, "maxUnavailable": unavailable}
    spec = {"replicas": replicas, "strategy": {"type": type_, "rollingUpdate": update}}
    return Limits.of(DeploymentSpec.of(spec))


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "want"),
    [
        (4, "25%", "25%", Limits(1, 1)),
        (3, "25%", "25%", Limits(1, 0)),  # surge rounds up, unavailable down
        (10, "30%", 3, Limits(3, 3)),
        (1, 0, 0, Limits(0, 1)),  # a rollout must be able to move
        (3, 0, "10%", Limits(0, 1)),
        (2, 1, 5, Limits(1, 2)),  # never more unavailable than there are
        (0, "25%", "25%", Limits(0, 1)),
    ],
)
def test_limits_round_as_kubernetes_does(replicas: int, surge: int | str, unavailable: int | str, want: Limits) -> None:
    assert _limits(replicas, surge, unavailable) == want


def test_recreate_has_no_limits() -> None:
    assert _limits(3, 1, 1, "Recreate") == Limits(0, 0)


@pytest.mark.parametrize(
    ("replicas", "new", "old", "limits", "want"),
    [
        (4, 0, [4], Limits(1, 1), 1),  # as far as the surge goes
        (4, 0, [3], Limits(1, 1), 2),
        (4, 2, [3], Limits(1, 1), 2),  # no room
        (4, 5, [0], Limits(1, 1), 4),  # too large: down at once
        (4, 0, [9], Limits(1, 0), 0),  # far too many: no growth, no negative size
    ],
)
def test_new_set_grows_into_the_room(replicas: int, new: int, old: list[int], limits: Limits, want: int) -> None:
    olds = [_set(f"old-{i}", size, size) for i, size in enumerate(old)]
    assert next_new_size(replicas, _set("new", new, new), olds, limits) == want


def test_unhealthy_old_pods_go_first_whatever_the_availability() -> None:
    sick = _set("sick", 3, 0, created_at=2.0)
    well = _set("well", 3, 3, created_at=1.0)
    sizes = next_old_sizes(3, _set("new", 1, 0), [well, sick], Limits(1, 0))
    assert sizes == {"sick": 0}


def test_healthy_old_pods_wait_for_new_ones() -> None:
    old = _set("old", 3, 3)
    assert next_old_sizes(3, _set("new", 1, 0), [old], Limits(1, 0)) == {}
    assert next_old_sizes(3, _set("new", 1, 1), [old], Limits(1, 0)) == {"old": 2}


def test_a_status_from_before_the_scale_down_counts_no_pod_twice() -> None:
    # The old set was scaled from 4 to 3 a moment ago; its status still says 4 available.
    assert next_old_sizes(4, _set("new", 2, 1), [_set("old", 3, 4)], Limits(1, 1)) == {"old": 2}


def test_scaling_with_one_active_set_sizes_that_one() -> None:
    assert scaled_sizes(5, _set("new", 3, 3), [_set("old", 0, 0)], Limits(1, 1)) == {"new": 5}
    assert scaled_sizes(0, _set("new", 3, 3), [], Limits(1, 1)) == {"new": 0}
    assert scaled_sizes(3, _set("new", 3, 3), [], Limits(1, 1)) == {}


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    old = _set("old", 8, 8, created_at=1.0, max_replicas=13)
    new = _set("new", 5, 2, created_at=2.0, max_replicas=13)
    sizes = scaled_sizes(15, new, [old], Limits(3, 2))
    assert sum({"old": 8, "new": 5, **sizes}.values()) == 18
    assert sizes["old"] == 11
    assert sizes["new"] == 7


def test_scaling_down_to_zero_takes_all() -> None:
    sizes = scaled_sizes(0, _set("new", 2, 2), [_set("old", 3, 3)], Limits(1, 1))
    assert {"new": 2, "old": 3, **sizes} == {"new": 0, "old": 0}


@given(
    replicas=st.integers(1, 40),
    surge=st.integers(0, 100),
    unavailable=st.integers(0, 100),
    olds=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_rollout_ends_and_keeps_its_promises(
    replicas: int, surge: int, unavailable: int, olds: list[int], seed: int
) -> None:
    rng = random.Random(seed)
    limits = _limits(replicas, f"{surge}%", f"{unavailable}%")
    new = _set("new", 0, 0, created_at=99.0)
    old = [_set(f"old-{i}", size, size, created_at=float(i)) for i, size in enumerate(olds)]
    floor = min(replicas - limits.unavailable, sum(olds))
    ceiling = max(replicas + limits.surge, sum(olds))
    for _ in range(500):
        size = next_new_size(replicas, new, old, limits)
        shrink = {} if size != new.replicas else next_old_sizes(replicas, new, old, limits)
        new = replace(new, replicas=size)
        old = [replace(item, replicas=shrink.get(item.name, item.replicas)) for item in old]
        # Pods of a shrunk set are gone at once; the status that says so may come later.
        assert new.counted_available + sum(item.counted_available for item in old) >= floor
        assert new.replicas + sum(item.replicas for item in old) <= ceiling
        if new.available < new.replicas and rng.random() < 0.7:
            new = replace(new, available=rng.randint(new.available, new.replicas))
        if rng.random() < 0.5:
            old = [replace(item, available=min(item.available, item.replicas)) for item in old]
        if new.replicas == new.available == replicas and not any(item.replicas for item in old):
            break
    assert new.replicas == replicas
    assert not any(item.replicas for item in old)


@given(
    replicas=st.integers(0, 60),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    surge=st.integers(0, 10),
)
def test_proportional_scaling_never_goes_below_zero_or_over_the_surge(
    replicas: int, sizes: list[int], surge: int
) -> None:
    sets = [_set(f"s{i}", size, size // 2, created_at=float(i)) for i, size in enumerate(sizes)]
    after = {item.name: item.replicas for item in sets} | scaled_sizes(replicas, sets[-1], sets[:-1], Limits(surge, 1))
    assert all(size >= 0 for size in after.values())
    assert sum(after.values()) <= replicas + surge
