from collections.abc import Callable
from typing import Any

import pytest

from controlplane.scheduler.filters import (
    host_ports,
    node_affinity,
    node_name,
    node_selector,
    pod_affinity,
    readiness,
    resources,
    taints,
    unschedulable,
)
from controlplane.scheduler.filters.refusal import Refusal
from mesh.api.core import Node, Pod
from mesh.api.resources import Json
from tests.unit.scheduler.objects import make_facts, make_node, make_pod, make_state

pytestmark = pytest.mark.unit

Check = Callable[[Pod, Node], Refusal | None]


def _reason(check: Check, pod: Pod, node: Node) -> str | None:
    refusal = check(pod, node)
    return None if refusal is None else refusal.reason


@pytest.mark.parametrize(("wanted", "fits"), [("", True), ("n1", True), ("n2", False)])
def test_node_name(wanted: str, fits: bool) -> None:
    assert (_reason(node_name.check, make_pod(nodeName=wanted), make_node("n1")) is None) is fits


@pytest.mark.parametrize(
    ("selector", "detail"),
    [
        ({}, None),
        ({"disk": "ssd"}, None),
        ({"disk": "hdd"}, "disk=ssd, wants hdd"),
        ({"disk": "ssd", "zone": "a"}, "no label zone, wants a"),
    ],
)
def test_node_selector(selector: Json, detail: str | None) -> None:
    refusal = node_selector.check(make_pod(nodeSelector=selector), make_node("n1", labels={"disk": "ssd"}))
    assert (refusal.detail if refusal else None) == detail


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "effect", "fits"),
    [
        (None, "NoSchedule", False),
        (None, "NoExecute", False),
        (None, "PreferNoSchedule", True),
        ({"key": "gpu", "value": "yes"}, "NoSchedule", True),
        ({"key": "gpu", "value": "no"}, "NoSchedule", False),
        ({"key": "gpu", "operator": "Exists"}, "NoSchedule", True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, "NoSchedule", False),
        ({"key": "cpu", "operator": "Exists"}, "NoSchedule", False),
        ({"operator": "Exists"}, "NoExecute", True),
    ],
)
def test_taints(toleration: Json | None, effect: str, fits: bool) -> None:
    pod = make_pod(tolerations=[toleration] if toleration else [])
    reason = _reason(taints.check, pod, make_node("n1", taints=[{**TAINT, "effect": effect}]))
    assert reason == (None if fits else "node(s) had untolerated taint {gpu: yes}")


def test_cordoned_and_unready_nodes_take_only_pods_that_tolerate_it() -> None:
    cordoned, down = make_node("n1", unschedulable=True), make_node("n2", ready="Unknown")
    assert _reason(unschedulable.check, make_pod(), cordoned) == "node(s) were unschedulable"
    assert _reason(readiness.check, make_pod(), down) == "node(s) were not ready"
    daemon = make_pod(tolerations=[{"operator": "Exists"}])
    assert unschedulable.check(daemon, cordoned) is None
    assert readiness.check(daemon, down) is None


def _affine(*terms: Json) -> Pod:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return make_pod(affinity={"nodeAffinity": required})


def _expression(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "fits"),
    [
        ([_expression("zone", "In", "a", "b")], True),
        ([_expression("zone", "In", "c")], False),
        ([_expression("zone", "NotIn", "c")], True),
        ([_expression("missing", "NotIn", "c")], True),
        ([_expression("zone", "Exists")], True),
        ([_expression("missing", "Exists")], False),
        ([_expression("missing", "DoesNotExist")], True),
        ([_expression("cores", "Gt", "7")], True),
        ([_expression("cores", "Lt", "8")], False),
        ([_expression("zone", "Gt", "1")], False),
        ([_expression("zone", "In", "c"), _expression("cores", "Exists")], True),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}], True),
        ([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}], False),
        ([{}], False),
        (
            [
                {
                    "matchExpressions": [
                        *_expression("zone", "Exists")["matchExpressions"],
                        *_expression("x", "Exists")["matchExpressions"],
                    ]
                }
            ],
            False,
        ),
    ],
)
def test_required_node_affinity(terms: list[Json], fits: bool) -> None:
    node = make_node("n1", labels={"zone": "a", "cores": "8"})
    assert (node_affinity.check(_affine(*terms), node) is None) is fits


def test_resources_count_what_is_placed_and_explain_with_figures() -> None:
    state = make_state(make_node("n1"), make_node("n2", pods="1"))
    state.put_pod(make_facts("a", requests={"cpu": "3500m", "memory": "6Gi"}), "n1")
    state.put_pod(make_facts("b"), "n2")
    facts = make_facts("c", requests={"cpu": "1", "memory": "4Gi"})
    assert resources.mask(facts, state).tolist() == [False, False]
    assert resources.refusals(facts, state, 0) == (
        Refusal("Insufficient cpu", "wants 1, 500m of 4 free"),
        Refusal("Insufficient memory", "wants 4Gi, 2Gi of 8Gi free"),
    )
    assert resources.refusals(facts, state, 1) == (Refusal("Too many pods", "1 pods at most"),)
    state.remove_pod("a")
    assert resources.mask(facts, state).tolist() == [True, False]


def test_resource_no_node_has_is_short_everywhere() -> None:
    state = make_state(make_node("n1"))
    facts = make_facts(requests={"example.com/gpu": "1"})
    assert resources.mask(facts, state).tolist() == [False]
    assert resources.refusals(facts, state, 0)[0] == Refusal("Insufficient example.com/gpu", "wants 1, 0 of 0 free")


def _with_host_port(name: str, port: int, **more: Any) -> Json:
    return {"containers": [{"name": "a", "ports": [{"containerPort": port, "hostPort": port, **more}]}]}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [({}, False), ({"protocol": "UDP"}, True), ({"hostIP": "10.0.0.2"}, True), ({"hostIP": "10.0.0.1"}, False)],
)
def test_host_ports_conflict_by_protocol_and_address(wanted: Json, fits: bool) -> None:
    state = make_state(make_node("n1"), make_node("n2"))
    state.put_pod(make_facts("a", **_with_host_port("a", 80, hostIP="10.0.0.1")), "n1")
    facts = make_facts("b", **_with_host_port("b", 80, **wanted))
    assert host_ports.mask(facts, state).tolist() == [fits, True]
    assert bool(host_ports.refusals(facts, state, 0)) is not fits


def _term(selector: Json, topology_key: str = "kubernetes.io/hostname") -> Json:
    term = {"labelSelector": {"matchLabels": selector}, "topologyKey": topology_key}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def test_pod_anti_affinity_holds_both_ways() -> None:
    state = make_state(make_node("n1"), make_node("n2"))
    alone = make_facts("a", labels={"app": "db"}, affinity={"podAntiAffinity": _term({"app": "db"})})
    state.put_pod(alone, "n1")
    other = make_facts("b", labels={"app": "db"}, affinity={"podAntiAffinity": _term({"app": "db"})})
    assert pod_affinity.mask(other, state).tolist() == [False, True]
    plain = make_facts("c", labels={"app": "db"})
    assert pod_affinity.mask(plain, state).tolist() == [False, True]
    assert (
        pod_affinity.refusals(plain, state, 0)[0].reason == "node(s) didn't satisfy existing pods anti-affinity rules"
    )
    assert pod_affinity.mask(make_facts("d"), state).tolist() == [True, True]
    state.remove_pod("a")
    assert pod_affinity.mask(plain, state).tolist() == [True, True]


def test_pod_affinity_follows_the_topology_and_lets_the_first_of_a_group_start() -> None:
    state = make_state(*(make_node(f"n{i}", labels={"zone": zone}) for i, zone in enumerate("aab")))
    near = make_facts("b", affinity={"podAffinity": _term({"app": "db"}, "zone")})
    assert pod_affinity.mask(near, state).tolist() == [False] * 3
    state.put_pod(make_facts("a", labels={"app": "db"}), "n0")
    assert pod_affinity.mask(near, state).tolist() == [True, True, False]
    first = make_facts("c", labels={"app": "new"}, affinity={"podAffinity": _term({"app": "new"}, "zone")})
    assert pod_affinity.mask(first, state).tolist() == [True, True, True]
