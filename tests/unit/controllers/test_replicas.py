"""How many pods a set makes or deletes, and which go first."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.controllers.pods import deletion_order
from controlplane.controllers.replicas import ReplicaPlan, ReplicaState, failure_condition, plan, slow_start
from controlplane.controllers.unseen import UnseenWrites
from mesh.api.meta import Condition
from mesh.api.pod import Pod
from mesh.clock import ManualClock

pytestmark = pytest.mark.unit

NOW = 1_700_000_000.0
_START = "2023-11-14T22:00:00Z"  # 800 s before NOW


def _pod(name: str, **more: Any) -> Pod:
    meta = {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": more.get("created", _START)}
    meta |= {"labels": more.get("labels", {}), "annotations": more.get("annotations", {})}
    if more.get("terminating"):
        meta["deletionTimestamp"] = _START
    ready = more.get("ready", True)
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": more.get("since", _START)}
    ]
    status: dict[str, Any] = {"phase": more.get("phase", "Running"), "conditions": conditions}
    status["containerStatuses"] = [{"name": "a", "restartCount": more.get("restarts", 0)}]
    return Pod.of({"metadata": meta, "spec": {"nodeName": more.get("node", "n1")}, "status": status})


def _plan(pods: list[Pod], replicas: int, **more: Any) -> ReplicaPlan:
    fields: dict[str, Any] = {"min_ready_s": 0, "template_labels": {}, "pending_creations": 0, "now": NOW} | more
    return plan(ReplicaState(replicas=replicas, pods=pods, **fields))


@pytest.mark.parametrize(
    ("pods", "replicas", "more", "create", "delete"),
    [
        ([], 3, {}, 3, 0),
        ([_pod("a")], 3, {"pending_creations": 2}, 0, 0),  # made already, not shown yet
        ([_pod("a"), _pod("b")], 1, {}, 0, 1),
        ([_pod("a", terminating=True)], 1, {}, 1, 0),  # replaced while it ends
        ([_pod("a", phase="Failed")], 1, {}, 1, 0),
        ([], 3, {"is_terminating": True}, 0, 0),
        ([_pod("a")], 0, {"is_terminating": True}, 0, 0),
        ([_pod("a")], 0, {"pending_creations": 4}, 0, 1),  # only what is seen can be chosen
    ],
)
def test_counts(pods: list[Pod], replicas: int, more: dict[str, Any], create: int, delete: int) -> None:
    decision = _plan(pods, replicas, **more)
    assert (decision.create, len(decision.delete)) == (create, delete)


def test_status_counts_ready_available_and_labelled() -> None:
    labels = {"app": "web"}
    pods = [
        _pod("old", labels=labels),
        _pod("fresh", labels=labels, since="2023-11-14T22:13:10Z"),
        _pod("unready", ready=False),
        _pod("ending", terminating=True),
    ]
    decision = _plan(pods, 3, min_ready_s=60, template_labels=labels)
    assert decision.status == {
        "replicas": 3,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
    }
    assert decision.again_after_s == pytest.approx(50.0)


_ORDERED = [
    _pod("unassigned", node=""),
    _pod("pending", phase="Pending", ready=False),
    _pod("unready", ready=False),
    _pod("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
    _pod("crowded-fresh", node="n2", since="2023-11-14T22:10:00Z"),
    _pod("crowded", node="n2"),
    _pod("restarted", node="n3", restarts=4),
    _pod("young", node="n4", created="2023-11-14T22:05:00Z"),
    _pod("plain", node="n5"),
]


@given(st.permutations(_ORDERED))
def test_deletion_order_follows_the_ranks(pods: list[Pod]) -> None:
    siblings = [_pod("s1", node="n2")]
    order = [pod.metadata.name for pod in deletion_order(pods, siblings)]
    assert order == [pod.metadata.name for pod in _ORDERED]


@given(st.integers(0, 3000))
def test_slow_start_doubles_and_covers_all(count: int) -> None:
    batches = slow_start(count)
    assert sum(batches) == count
    assert batches[:4] == [1, 2, 4, 8][: len(batches)] if count >= 15 else True
    assert all(batch > 0 for batch in batches)


def test_failure_condition_keeps_its_time_and_goes_when_cured() -> None:
    before = (Condition(type="ReplicaFailure", status="True", last_transition_time="then"), Condition(type="Other"))
    failed = failure_condition(before, "quota", "now")
    assert failed[-1]["lastTransitionTime"] == "then"
    assert [c["type"] for c in failure_condition(before, "", "now")] == ["Other"]
    assert failure_condition((), "quota", "now")[0]["lastTransitionTime"] == "now"


def test_unseen_writes_are_counted_until_the_cache_shows_them_or_they_expire() -> None:
    clock = ManualClock()
    unseen = UnseenWrites(clock)
    unseen.created("ns/a", "u1")
    unseen.created("ns/a", "u2")
    unseen.deleted("ns/a", "u3")
    unseen.observe("ns/a", _pod("u1"), is_gone=False)
    assert unseen.pending_creations("ns/a") == 1
    unseen.observe("ns/a", _pod("u3"), is_gone=False)
    assert unseen.is_deleted("ns/a", "u3")
    unseen.observe("ns/a", _pod("u3", terminating=True), is_gone=False)
    assert not unseen.is_deleted("ns/a", "u3")
    assert unseen.next_expiry_s("ns/a") == pytest.approx(30.0)
    clock.advance(31)
    assert unseen.pending_creations("ns/a") == 0
    assert unseen.next_expiry_s("ns/a") is None
