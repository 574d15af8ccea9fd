"""Subsets: who is in one, and who answers when none matches."""

import random
from dataclasses import replace

import pytest

from mesh.balance.balancer import BalanceCounts, BalanceSpec, Surroundings
from mesh.balance.config import SubsetConfig, SubsetFallback, SubsetSelector
from mesh.balance.endpoint import Health, Labels, LbPolicy
from mesh.balance.errors import BalanceConfigError
from mesh.balance.subset import Choice, SubsetChoice, choose_subset, has_labels, subset_labels
from mesh.balance.subset_balancer import SubsetBalancer
from tests.unit.balance.hosts import Member, member, shares

pytestmark = pytest.mark.unit

V1: Labels = (("version", "v1"),)
V2: Labels = (("version", "v2"),)
V1_PROD: Labels = (("stage", "prod"), ("version", "v1"))
BY_VERSION = SubsetSelector(keys=frozenset({"version"}))
BY_BOTH = SubsetSelector(
    keys=frozenset({"version", "stage"}), fallback=SubsetFallback.KEYS_SUBSET, fallback_keys=frozenset({"version"})
)


def test_an_endpoint_belongs_to_a_subset_when_it_has_all_keys() -> None:
    assert subset_labels(BY_VERSION, V1_PROD) == V1
    assert subset_labels(BY_BOTH, V1_PROD) == V1_PROD
    assert subset_labels(BY_BOTH, V1) is None
    assert has_labels(V1_PROD, V1)
    assert has_labels(V1, ())
    assert not has_labels(V1, V1_PROD)


@pytest.mark.parametrize(
    ("fallback", "selectors", "labels", "expected"),
    [
        (SubsetFallback.NO_FALLBACK, [BY_VERSION], V1, SubsetChoice(Choice.SUBSET, V1)),
        (SubsetFallback.NO_FALLBACK, [BY_VERSION], (("version", "v9"),), SubsetChoice(Choice.NONE)),
        (SubsetFallback.NO_FALLBACK, [BY_VERSION], (), SubsetChoice(Choice.NONE)),
        (SubsetFallback.ANY_ENDPOINT, [BY_VERSION], (), SubsetChoice(Choice.ANY)),
        (SubsetFallback.ANY_ENDPOINT, [BY_VERSION], V1_PROD, SubsetChoice(Choice.ANY)),
        (SubsetFallback.DEFAULT_SUBSET, [BY_VERSION], (("other", "x"),), SubsetChoice(Choice.DEFAULT)),
        (SubsetFallback.NO_FALLBACK, [BY_BOTH, BY_VERSION], V1_PROD, SubsetChoice(Choice.SUBSET, V1)),
        (
            SubsetFallback.ANY_ENDPOINT,
            [SubsetSelector(keys=frozenset({"version"}), fallback=SubsetFallback.NO_FALLBACK)],
            (("version", "v9"),),
            SubsetChoice(Choice.NONE),
        ),
    ],
)
def test_where_a_request_goes(
    fallback: SubsetFallback, selectors: list[SubsetSelector], labels: Labels, expected: SubsetChoice
) -> None:
    config = SubsetConfig(selectors=tuple(selectors), fallback=fallback)
    assert choose_subset(config, {V1, V2}, labels) == expected


def test_a_keys_fallback_must_ask_for_less() -> None:
    with pytest.raises(BalanceConfigError, match="some, but not all"):
        SubsetSelector(keys=frozenset({"a"}), fallback=SubsetFallback.KEYS_SUBSET, fallback_keys=frozenset({"a"}))


HOSTS = [
    member("a", labels=V1),
    member("b", labels=V1),
    member("c", labels=V2),
    member("d"),
]


def subsets(config: SubsetConfig, hosts: list[Member], counts: BalanceCounts | None = None) -> SubsetBalancer[Member]:
    around = Surroundings(clock=lambda: 0.0, draw=random.Random(4).random, counts=counts or BalanceCounts())
    spec = BalanceSpec(policy=LbPolicy.ROUND_ROBIN, is_locality_weighted=config.is_locality_aware)
    made: SubsetBalancer[Member] = SubsetBalancer(config, spec, around)
    made.update(hosts)
    return made


def names(made: SubsetBalancer[Member], labels: Labels) -> set[str]:
    balancer, rng = made.find(labels), random.Random(1)
    return set(shares(lambda: balancer.picker.pick(rng.random), 50))


def test_each_subset_has_its_own_hosts() -> None:
    counts = BalanceCounts()
    made = subsets(SubsetConfig(selectors=(BY_VERSION,), fallback=SubsetFallback.ANY_ENDPOINT), HOSTS, counts)
    assert names(made, V1) == {"a", "b"}
    assert names(made, V2) == {"c"}
    assert names(made, ()) == {"a", "b", "c", "d"}
    assert (counts.subsets_selected, counts.subsets_fallback, made.active) == (2, 1, 2)


def test_without_fallback_nobody_answers() -> None:
    made = subsets(SubsetConfig(selectors=(BY_VERSION,)), HOSTS)
    assert names(made, (("version", "v9"),)) == {""}


def test_the_default_subset_and_any_when_it_is_empty() -> None:
    config = SubsetConfig(selectors=(BY_VERSION,), fallback=SubsetFallback.DEFAULT_SUBSET, default_labels=V2)
    assert names(subsets(config, HOSTS), ()) == {"c"}
    assert names(subsets(config, HOSTS[:2]), ()) == {""}
    panicking = SubsetConfig(
        selectors=(BY_VERSION,), fallback=SubsetFallback.DEFAULT_SUBSET, default_labels=V2, panic_mode_any=True
    )
    assert names(subsets(panicking, HOSTS[:2]), ()) == {"a", "b"}


def test_a_subset_panics_on_its_own() -> None:
    hosts = [
        member("a", labels=V1),
        member("b", labels=V1, health=Health.UNHEALTHY),
        member("c", labels=V2, health=Health.UNHEALTHY),
    ]
    made = subsets(SubsetConfig(selectors=(BY_VERSION,)), hosts)
    assert names(made, V1) == {"a"}
    assert names(made, V2) == {"c"}


def test_subsets_follow_health_and_members() -> None:
    hosts = [member("a", labels=V1), member("b", labels=V1), member("c", labels=V2)]
    made = subsets(SubsetConfig(selectors=(BY_VERSION,)), hosts)
    assert names(made, V1) == {"a", "b"}
    hosts[0].is_usable = False
    made.update(hosts, is_same_set=True)
    assert names(made, V1) == {"b"}
    made.update([hosts[0], hosts[2], member("x", labels=V2)])
    assert names(made, V2) == {"c", "x"}
    assert made.active == 2
    made.update([])
    assert names(made, V2) == {""}
    assert made.active == 0


def test_localities_count_within_a_subset_when_asked_scaled_when_asked() -> None:
    hosts = [member(f"a{i}", zone="a", zone_weight=1, labels=V1 if i == 0 else V2) for i in range(4)]
    hosts += [member(f"b{i}", zone="b", zone_weight=1, labels=V1) for i in range(2)]

    plain = SubsetConfig(selectors=(BY_VERSION,))
    aware = replace(plain, is_locality_aware=True)
    for config, expected in (
        (plain, 1 / 3),
        (aware, 1 / 2),
        (replace(aware, scales_locality_weight=True), 0.25 / 1.25),
    ):
        picker, rng = subsets(config, hosts).find(V1).picker, random.Random(1)
        assert shares(lambda: picker.pick(rng.random))["a0"] == pytest.approx(expected, abs=0.02)  # noqa: B023
