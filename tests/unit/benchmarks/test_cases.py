"""Which cases there are and which are run."""

import itertools

import pytest

from benchmarks.data_plane import goals
from benchmarks.data_plane.cases import CLOSED_LOOP, PACED, all_cases, name_of, select
from benchmarks.data_plane.machine import place, place_workers
from benchmarks.data_plane.runner import setup_of

pytestmark = pytest.mark.unit


def test_names_are_unique_and_have_a_group() -> None:
    names = [name_of(case) for case in all_cases()]
    assert len(set(names)) == len(names)
    assert all(name.count("/") == 1 for name in names)


def test_full_run_has_every_load_of_the_issue() -> None:
    names = {name_of(case) for case in select([], is_full=True)}
    wanted = {f"connections/{count}" for count in (1, 8, 32, 128, 512)}
    wanted |= {f"{way}/{size}" for way in ("download", "upload") for size in ("61B", "1KB", "64KB", "10MB")}
    wanted |= {f"routes/{count}" for count in (10, 1000, 10_000)}
    wanted |= {
        "heads/repeat",
        "heads/unique",
        "two_hops/unique",
        "churn/small",
        "latency/1000",
        "memory/100",
        "memory/1000",
    }
    assert wanted <= names


def test_quick_run_measures_every_goal() -> None:
    quick = {name_of(case) for case in select([], is_full=False)}
    assert {goal.case for goal in goals.GOALS} <= quick
    assert len(quick) < len(all_cases())


def test_only_takes_groups_and_cases() -> None:
    chosen = [name_of(case) for case in select(["heads", "connections/512"], is_full=False)]
    assert chosen == ["heads/repeat", "heads/unique", "connections/512"]


def test_unknown_case_is_refused_with_the_groups_there_are() -> None:
    with pytest.raises(ValueError, match=r'no case called "head": want a group \(heads, download'):
        select(["head"], is_full=False)


def test_cases_with_one_set_up_are_neighbours() -> None:
    setups = [setup_of(case) for case in CLOSED_LOOP]
    changes = sum(1 for before, after in itertools.pairwise(setups) if before != after)
    assert changes == len(set(setups)) - 1


def test_paced_connections_share_the_rate_evenly() -> None:
    assert all(case.rate_per_s % case.connections == 0 for case in PACED)


@pytest.mark.parametrize(
    ("cores", "proxy", "upstream", "load"),
    [([3], (3,), (3,), (3,)), ([0, 1], (0,), (1,), (1,)), ([0, 1, 2, 3], (0,), (1,), (2,))],
)
def test_the_proxy_has_its_core_to_itself_where_there_are_two(
    cores: list[int], proxy: tuple[int, ...], upstream: tuple[int, ...], load: tuple[int, ...]
) -> None:
    placed = place(cores)
    assert (placed.proxy, placed.upstream, placed.load) == (proxy, upstream, load)
    assert placed.all <= set(cores)


def test_workers_share_small_machines_and_have_two_cores_on_big_ones() -> None:
    small, big = place_workers([0, 1]), place_workers([0, 1, 2, 3])
    assert small.proxy == small.upstream == small.load == (0, 1)
    assert (big.proxy, big.upstream, big.load) == ((0, 1), (2,), (3,))
