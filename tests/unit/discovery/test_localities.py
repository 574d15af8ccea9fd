"""Which endpoints a client of some place is given first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.discovery.localities import ANYWHERE, Locality, Member, Place, arrange, node_locality
from mesh.api.core import Node
from policies.balancing import locality_matches
from policies.traffic import LocalityBalancing, LocalityShares

pytestmark = pytest.mark.unit

NORTH_1A = Locality("north", "n1", "a")
NORTH_1B = Locality("north", "n1", "b")
NORTH_2 = Locality("north", "n2")
SOUTH = Locality("south", "s1")
EAST = Locality("east", "e1")
EVERYWHERE = (NORTH_1A, NORTH_1B, NORTH_2, SOUTH, EAST)
CLIENT = Place(NORTH_1A)


def members(*localities: Locality, **labels: str) -> list[Member]:
    return [Member(number, locality, labels) for number, locality in enumerate(localities)]


def priorities(balancing: LocalityBalancing, place: Place = CLIENT, *localities: Locality) -> dict[Locality, int]:
    groups = arrange(members(*(localities or EVERYWHERE)), balancing, place)
    return {group.locality: group.priority for group in groups}


def shares(*targets: tuple[str, int], source: str = "north/*") -> LocalityBalancing:
    return LocalityBalancing(distribute=(LocalityShares(source=source, targets=targets),))


def weights(balancing: LocalityBalancing, *localities: Locality) -> dict[str, int]:
    return {g.locality.path: g.weight for g in arrange(members(*localities), balancing, CLIENT)}


def test_without_a_policy_or_a_place_all_are_equal() -> None:
    for balancing, place in ((None, CLIENT), (LocalityBalancing(), ANYWHERE)):
        groups = arrange(members(NORTH_2, NORTH_1A, NORTH_1A), balancing, place)
        assert [(g.locality, g.priority, g.weight) for g in groups] == [(NORTH_1A, 0, 2), (NORTH_2, 0, 1)]


def test_nearest_first() -> None:
    found = priorities(LocalityBalancing())
    assert found == {NORTH_1A: 0, NORTH_1B: 1, NORTH_2: 2, SOUTH: 3, EAST: 3}


def test_the_chosen_region_takes_over_before_others() -> None:
    found = priorities(LocalityBalancing(failover=(("north", "east"), ("south", "north"))))
    assert found == {NORTH_1A: 0, NORTH_1B: 1, NORTH_2: 2, EAST: 3, SOUTH: 4}


def test_priorities_have_no_gaps() -> None:
    assert priorities(LocalityBalancing(), CLIENT, EAST, NORTH_2) == {NORTH_2: 0, EAST: 1}


def test_labels_in_order() -> None:
    balancing = LocalityBalancing(
        priority_labels=(("topology.kubernetes.io/region", ""), ("tier", "gold"), ("team", ""))
    )
    place = Place(NORTH_1A, (("team", "a"),))
    found = {
        name: group.priority
        for group in arrange(
            [
                Member("all", NORTH_2, {"tier": "gold", "team": "a"}),
                Member("two", NORTH_1A, {"tier": "gold", "team": "b"}),
                Member("one", NORTH_1A, {"team": "a"}),
                Member("none", SOUTH, {"tier": "gold", "team": "a"}),
            ],
            balancing,
            place,
        )
        for name in (member.endpoint for member in group.members)
    }
    assert found == {"all": 0, "two": 1, "one": 2, "none": 3}


def test_a_label_the_client_lacks_matches_nothing() -> None:
    balancing = LocalityBalancing(priority_labels=(("team", ""),))
    groups = arrange([Member(0, NORTH_1A, {"team": "a"}), Member(1, NORTH_1A, {})], balancing, CLIENT)
    assert [(g.priority, g.weight) for g in groups] == [(0, 2)]


def test_shares_are_spread_over_the_groups_of_a_target() -> None:
    found = weights(shares(("north/*", 80), ("south/*", 20)), NORTH_1A, NORTH_1A, NORTH_1A, NORTH_2, SOUTH)
    assert found == {"north/n1/a": 6000, "north/n2/": 2000, "south/s1/": 2000}


def test_the_most_exact_target_owns_a_group_and_others_get_nothing() -> None:
    found = weights(shares(("north/n1/*", 70), ("*", 30), ("south", 0)), NORTH_1A, NORTH_2, SOUTH)
    assert found == {"north/n1/a": 7000, "north/n2/": 3000}
    assert weights(shares(("south", 100)), NORTH_1A, SOUTH, EAST) == {"south/s1/": 10_000}


def test_clients_of_other_places_are_not_concerned() -> None:
    assert weights(shares(("south", 100), source="east"), NORTH_1A, SOUTH) == {"north/n1/a": 1, "south/s1/": 1}


@pytest.mark.parametrize(
    ("pattern", "locality", "expected"),
    [
        ("*", "a/b/c", True),
        ("a", "a/b/c", True),
        ("a/*", "a//", True),
        ("a/b", "a/b/c", True),
        ("a/b/c", "a/b/", False),
        ("a/b/*", "a/x/c", False),
        ("b", "a/b/c", False),
        ("a/b", "a", False),
    ],
)
def test_locality_patterns(pattern: str, locality: str, expected: bool) -> None:
    assert locality_matches(pattern, locality) is expected


def test_nodes_tell_their_place_by_labels() -> None:
    labels = {
        "topology.kubernetes.io/region": "north",
        "topology.kubernetes.io/zone": "n1",
        "topology.istio.io/subzone": "a",
    }
    assert node_locality(Node.of({"metadata": {"name": "n", "labels": labels}})) == NORTH_1A
    assert node_locality(Node.of({"metadata": {"name": "n"}})) == Locality()


PLACES = st.builds(Locality, *(st.sampled_from(["", "a", "b"]),) * 3)
BALANCINGS = st.one_of(
    st.none(),
    st.just(LocalityBalancing()),
    st.just(LocalityBalancing(failover=(("a", "b"),))),
    st.just(LocalityBalancing(priority_labels=(("topology.kubernetes.io/zone", ""), ("x", "1")))),
)


@given(st.lists(PLACES), BALANCINGS, PLACES)
def test_nobody_is_lost_and_groups_are_fit_for_every_client(
    localities: list[Locality], balancing: LocalityBalancing | None, own: Locality
) -> None:
    groups = arrange(members(*localities), balancing, Place(own))
    assert sorted(member.endpoint for group in groups for member in group.members) == list(range(len(localities)))
    found = {group.priority for group in groups}
    assert found == set(range(len(found)))
    assert all(group.weight > 0 for group in groups)
    assert len({(group.priority, group.locality) for group in groups}) == len(groups)


@given(st.lists(PLACES, min_size=1), st.integers(0, 100))
def test_shares_are_kept_to_a_hundredth_of_a_percent(localities: list[Locality], percent: int) -> None:
    balancing = LocalityBalancing(
        distribute=(LocalityShares(source="*", targets=(("a/*", percent), ("*", 100 - percent))),)
    )
    groups = arrange(members(*localities), balancing, Place(Locality("a")))
    total = sum(group.weight for group in groups)
    in_a = sum(group.weight for group in groups if group.locality.region == "a")
    has_both = {locality.region == "a" for locality in localities} == {True, False}
    if has_both:
        assert abs(in_a / total - percent / 100) <= len(groups) / 10_000
