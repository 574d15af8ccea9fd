import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.scheduler.decide import Binding, Decider, Unschedulable, explain
from controlplane.scheduler.pods import PodFacts
from controlplane.scheduler.state import ClusterState
from mesh.api.resources import Json
from tests.unit.scheduler.objects import make_facts, make_node, make_service, make_state

pytestmark = pytest.mark.unit


def _place(state: ClusterState, facts: PodFacts, decider: Decider | None = None, seed: int = 1) -> str:
    outcome = (decider or Decider()).decide(facts, state, random.Random(seed))
    assert isinstance(outcome, Binding)
    state.put_pod(facts, outcome.node_name)
    return outcome.node_name


@pytest.mark.parametrize("seed", range(5))
def test_pods_of_one_owner_are_spread(seed: int) -> None:
    state = make_state(*(make_node(f"n{i}") for i in range(3)))
    nodes = [_place(state, make_facts(f"p{i}", owner="rs"), seed=seed) for i in range(6)]
    assert sorted(nodes) == ["n0", "n0", "n1", "n1", "n2", "n2"]


@pytest.mark.parametrize("seed", range(5))
def test_pods_of_one_service_are_spread_whoever_owns_them(seed: int) -> None:
    state = make_state(make_node("n0"), make_node("n1"))
    state.put_service(make_service("web", {"type": "webserver"}))
    first = _place(state, make_facts("p0", owner="production", labels={"type": "webserver"}), seed=seed)
    second = _place(state, make_facts("p1", owner="canary", labels={"type": "webserver"}), seed=seed)
    assert first != second


def test_service_that_comes_later_counts_pods_that_are_there() -> None:
    state = make_state(make_node("n0"), make_node("n1"))
    state.put_pod(make_facts("p0", labels={"a": "b"}), "n0")
    state.put_service(make_service("web", {"a": "b"}))
    assert state.group_counts("service/d/web").tolist() == [1.0, 0.0]
    state.remove_service(make_service("web", {}))
    assert state.group_counts("service/d/web").tolist() == [0.0, 0.0]


def test_emptier_node_and_even_use_are_preferred() -> None:
    state = make_state(make_node("small", cpu="2", memory="4Gi"), make_node("large", cpu="16", memory="32Gi"))
    assert _place(state, make_facts(requests={"cpu": "1", "memory": "2Gi"})) == "large"
    state = make_state(make_node("lopsided", cpu="4", memory="64Gi"), make_node("even", cpu="8", memory="8Gi"))
    assert _place(state, make_facts(requests={"cpu": "2", "memory": "2Gi"})) == "even"


def test_preferred_affinity_and_soft_taints_decide_between_equals() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": term}]}
    state = make_state(make_node("a"), make_node("b", labels={"disk": "ssd"}), make_node("c"))
    assert _place(state, make_facts(affinity={"nodeAffinity": preferred})) == "b"
    soft = [{"key": "x", "effect": "PreferNoSchedule"}]
    state = make_state(make_node("a", taints=soft), make_node("b"))
    assert all(_place(make_state(*state.nodes), make_facts(), seed=s) == "b" for s in range(5))


def test_equals_are_drawn_by_lot() -> None:
    nodes = [make_node(f"n{i}") for i in range(3)]
    assert len({_place(make_state(*nodes), make_facts(), seed=s) for s in range(30)}) == 3


def test_changed_node_is_seen_and_a_heartbeat_keeps_the_cache() -> None:
    state = make_state(make_node("n1"))
    decider = Decider()
    assert isinstance(decider.decide(make_facts(), state, random.Random(1)), Binding)
    generation = state.generation
    assert not state.put_node(make_node("n1"))
    assert state.generation == generation
    assert state.put_node(make_node("n1", unschedulable=True))
    assert isinstance(decider.decide(make_facts(), state, random.Random(1)), Unschedulable)
    state.remove_node("n1")
    assert explain(_refused(state, make_facts())) == (
        "0/0 nodes are available: no node has registered; is a node agent running?"
    )


def _refused(state: ClusterState, facts: PodFacts) -> Unschedulable:
    outcome = Decider().decide(facts, state, random.Random(1))
    assert isinstance(outcome, Unschedulable)
    return outcome


def test_explanation_names_every_node_with_its_reason() -> None:
    nodes = [
        make_node("n1", taints=[{"key": "gpu", "effect": "NoSchedule"}]),
        make_node("n2"),
        make_node("n3", cpu="1"),
    ]
    outcome = _refused(make_state(*nodes), make_facts(requests={"cpu": "6"}))
    assert explain(outcome) == (
        "0/3 nodes are available: 2 Insufficient cpu (n2: wants 6, 4 of 4 free; n3: wants 6, 1 of 1 free), "
        "1 node(s) had untolerated taint {gpu: } (n1)."
    )


def test_explanation_of_many_nodes_is_bounded() -> None:
    state = make_state(*(make_node(f"n{i:02}", unschedulable=True) for i in range(30)))
    text = explain(_refused(state, make_facts()), max_named=2)
    assert text == "0/30 nodes are available: 30 node(s) were unschedulable (n00, n01, and 28 more)."


AMOUNTS = st.fixed_dictionaries(
    {"cpu": st.sampled_from(["100m", "1", "2500m"]), "memory": st.sampled_from(["64Mi", "1Gi", "5Gi"])}
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(AMOUNTS, max_size=25),
    st.lists(st.sampled_from(["1", "4", "8"]), min_size=1, max_size=5),
    st.integers(0, 2**16),
    st.data(),
)
def test_no_node_is_ever_overfull_and_refused_pods_really_fit_nowhere(
    requests: list[Json], cpus: list[str], seed: int, data: st.DataObject
) -> None:
    state = make_state(*(make_node(f"n{i}", cpu=cpu, pods="8") for i, cpu in enumerate(cpus)))
    decider, rng = Decider(), random.Random(seed)
    for number, amounts in enumerate(requests):
        facts = make_facts(f"p{number}", requests=amounts, owner=f"o{number % 3}")
        outcome = decider.decide(facts, state, rng)
        if isinstance(outcome, Binding):
            state.put_pod(facts, outcome.node_name)
        else:
            assert set(outcome.refusals) == {n.metadata.name for n in state.nodes}
            assert all(outcome.refusals.values())
        victim = data.draw(st.none() | st.integers(0, number))
        if victim is not None:
            state.remove_pod(f"p{victim}")
        assert (state.requested <= state.allocatable).all()
    for uid in list(state.placed):
        state.remove_pod(uid)
    assert not state.requested.any()
    assert not np.abs(state.scoring).any()
    assert not state.group_counts("owner/o0").any()


def test_pod_of_an_unknown_node_counts_when_the_node_appears() -> None:
    state = make_state()
    state.put_pod(make_facts("a", requests={"cpu": "3"}), "n1")
    state.put_node(make_node("n1"))
    assert isinstance(Decider().decide(make_facts("b", requests={"cpu": "2"}), state, random.Random(1)), Unschedulable)
