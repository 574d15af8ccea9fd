"""What a DELETE does, as tables."""

from typing import Any

import pytest

from controlplane.apiserver.deletion import (
    DeleteOptions,
    Mark,
    Nothing,
    Plan,
    Propagation,
    Remove,
    is_to_be_removed,
    plan_deletion,
)
from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.kinds import Kind, KindRegistry
from mesh.api.resources import CONFIG_MAPS, NAMESPACES, PODS, Json, Resource

pytestmark = pytest.mark.unit

KINDS = KindRegistry.builtin()
NOW_S = 1_700_000_000.0


def _kind(resource: Resource) -> Kind:
    return KINDS.preferred(resource)


def _pod(phase: str = "Running", node: str = "n", grace: int | None = None, **metadata: Any) -> Json:
    spec: Json = {"nodeName": node} if node else {}
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace
    return {"metadata": {"name": "p", **metadata}, "spec": spec, "status": {"phase": phase}}


def _plan(obj: Json, resource: Resource = PODS, **options: Any) -> Plan:
    return plan_deletion(_kind(resource), obj, DeleteOptions(**options), now_s=NOW_S)


def _grace(plan: Plan) -> int:
    assert isinstance(plan, Mark)
    return int(plan.obj["metadata"]["deletionGracePeriodSeconds"])


@pytest.mark.parametrize(
    ("pod", "asked", "grace"),
    [
        (_pod(), None, 30),
        (_pod(grace=5), None, 5),
        (_pod(grace=5), 60, 60),
        (_pod(deletionTimestamp="t", deletionGracePeriodSeconds=30), 10, 10),
    ],
)
def test_running_pods_get_their_grace(pod: Json, asked: int | None, grace: int) -> None:
    assert _grace(_plan(pod, grace_period_s=asked)) == grace


@pytest.mark.parametrize("pod", [_pod(node=""), _pod(phase="Succeeded"), _pod(phase="Failed")])
def test_pods_no_node_runs_go_at_once(pod: Json) -> None:
    assert isinstance(_plan(pod), Remove)


def test_grace_is_only_ever_shortened() -> None:
    leaving = _pod(deletionTimestamp="t", deletionGracePeriodSeconds=10)
    assert isinstance(_plan(leaving, grace_period_s=60), Nothing)
    assert isinstance(_plan(leaving), Nothing)
    assert isinstance(_plan(leaving, grace_period_s=0), Remove)


def test_the_time_of_deletion_is_when_the_grace_ends() -> None:
    plan = _plan(_pod(grace=10))
    assert isinstance(plan, Mark)
    assert plan.obj["metadata"]["deletionTimestamp"] == "2023-11-14T22:13:30Z"


@pytest.mark.parametrize(
    ("before", "propagation", "after"),
    [
        ([], Propagation.ORPHAN, ["orphan"]),
        ([], Propagation.FOREGROUND, ["foregroundDeletion"]),
        (["a", "orphan"], Propagation.BACKGROUND, ["a"]),
        (["a", "orphan"], Propagation.FOREGROUND, ["a", "foregroundDeletion"]),
        (["a"], Propagation.DEFAULT, ["a"]),
    ],
)
def test_propagation_decides_the_finalizers(before: list[str], propagation: Propagation, after: list[str]) -> None:
    plan = _plan({"metadata": {"name": "c", "finalizers": before}}, CONFIG_MAPS, propagation=propagation)
    assert isinstance(plan, Mark)
    assert plan.obj["metadata"]["finalizers"] == after


def test_the_old_object_is_left_alone() -> None:
    pod = _pod()
    _plan(pod)
    assert "deletionTimestamp" not in pod["metadata"]


def test_a_namespace_waits_for_its_content() -> None:
    namespace = {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    plan = _plan(namespace, NAMESPACES)
    assert isinstance(plan, Mark)
    assert plan.obj["status"]["phase"] == "Terminating"
    assert not is_to_be_removed(_kind(NAMESPACES), plan.obj)
    assert is_to_be_removed(_kind(NAMESPACES), {**plan.obj, "spec": {"finalizers": []}})


@pytest.mark.parametrize(
    "body",
    [
        {"gracePeriodSeconds": -1},
        {"gracePeriodSeconds": "5"},
        {"propagationPolicy": "Sideways"},
        {"propagationPolicy": "Orphan", "orphanDependents": True},
        {"dryRun": ["Some"]},
    ],
)
def test_options_that_make_no_sense(body: Json) -> None:
    with pytest.raises(ApiStatusError) as caught:
        DeleteOptions.of(body, {})
    assert caught.value.code == 400


def test_the_query_wins_over_the_body() -> None:
    options = DeleteOptions.of({"gracePeriodSeconds": 5}, {"gracePeriodSeconds": "0", "propagationPolicy": "Orphan"})
    assert (options.grace_period_s, options.propagation) == (0, Propagation.ORPHAN)
