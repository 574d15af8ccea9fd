"""What a Deployment does next: new sets, revisions, rollback, pause, Recreate, history, conditions."""

from typing import Any

import pytest

from controlplane.controllers.caches import Stored
from controlplane.controllers.deployment import ChangeSet, CreateSet, DeleteSet, DeploymentPlan, plan
from controlplane.controllers.deployment_status import same_status
from controlplane.controllers.revisions import (
    DESIRED_REPLICAS,
    HASH_LABEL,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
    StoredSet,
    new_set_object,
    same_template,
    template_hash,
)
from mesh.api.apps import Deployment, ReplicaSet
from mesh.api.resources import Json

pytestmark = pytest.mark.unit

NOW = 1_700_000_000.0
_THEN = "2023-11-14T22:00:00Z"  # 800 s before NOW
_JUST_NOW = "2023-11-14T22:13:00Z"  # 20 s before NOW


def _template(image: str = "v1", **labels: str) -> Json:
    return {"metadata": {"labels": {"app": "web", **labels}}, "spec": {"containers": [{"name": "a", "image": image}]}}


def _deployment(image: str = "v1", *, annotations: dict[str, str] | None = None, **spec: Any) -> Stored[Deployment]:
    obj: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "ns",
            "uid": "d",
            "generation": 2,
            "annotations": annotations or {},
        },
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": _template(image), **spec},
        "status": spec.pop("status", {}),
    }
    obj["spec"].pop("status", None)
    return Stored(Deployment.of(obj), obj)


def _set(
    deployment: Stored[Deployment],
    image: str,
    replicas: int,
    available: int | None = None,
    *,
    revision: int = 1,
    desired: int = 3,
    created: str = _THEN,
) -> StoredSet:
    """A set as the controller itself would have made it."""
    template = deployment.json | {"spec": {**deployment.json["spec"], "template": _template(image)}}
    annotations = {REVISION: str(revision), DESIRED_REPLICAS: str(desired), MAX_REPLICAS: str(desired + 1)}
    obj = new_set_object(Stored(Deployment.of(template), template), replicas, annotations)
    obj["metadata"] |= {"uid": f"rs-{image}", "creationTimestamp": created, "generation": 1}
    count = replicas if available is None else available
    obj["status"] = {
        "replicas": replicas,
        "readyReplicas": count,
        "availableReplicas": count,
        "observedGeneration": 1,
    }
    return Stored(ReplicaSet.of(obj), obj)


def _plan(deployment: Stored[Deployment], *sets: StoredSet, old_pods_running: bool = False) -> DeploymentPlan:
    return plan(deployment, sets, old_pods_running=old_pods_running, now=NOW)


def _sizes(decision: DeploymentPlan) -> dict[str, int | None]:
    return {
        step.target.view.spec.template.spec.containers[0].image: step.replicas
        for step in decision.steps
        if isinstance(step, ChangeSet)
    }


def _condition(decision: DeploymentPlan, type_: str) -> Json:
    found: Json = next(c for c in decision.status.status["conditions"] if c["type"] == type_)
    return found


def test_first_rollout_makes_one_set_with_all_replicas() -> None:
    deployment = _deployment()
    decision = _plan(deployment)
    (step,) = decision.steps
    assert isinstance(step, CreateSet)
    digest = step.obj["metadata"]["labels"][HASH_LABEL]
    assert step.obj["metadata"]["name"] == f"web-{digest}"
    assert step.obj["spec"]["selector"]["matchLabels"] == {"app": "web", HASH_LABEL: digest}
    assert step.obj["spec"]["template"]["metadata"]["labels"][HASH_LABEL] == digest
    assert step.obj["spec"]["replicas"] == 3
    assert step.obj["metadata"]["annotations"][REVISION] == "1"
    assert decision.revision == 1


def test_new_template_makes_a_set_as_large_as_the_surge() -> None:
    deployment = _deployment("v2", annotations={REVISION: "1", "kubernetes.io/change-cause": "v2 is out"})
    decision = _plan(deployment, _set(deployment, "v1", 3))
    (step,) = decision.steps
    assert isinstance(step, CreateSet)
    assert step.obj["spec"]["replicas"] == 1
    assert step.obj["metadata"]["annotations"][REVISION] == "2"
    assert step.obj["metadata"]["annotations"]["kubernetes.io/change-cause"] == "v2 is out"
    assert decision.revision == 2


def test_old_set_shrinks_only_when_the_new_pod_is_available() -> None:
    deployment = _deployment("v2", annotations={REVISION: "2"})
    waiting = _plan(deployment, _set(deployment, "v1", 3), _set(deployment, "v2", 1, 0, revision=2))
    assert waiting.steps == ()
    ready = _plan(deployment, _set(deployment, "v1", 3), _set(deployment, "v2", 1, 1, revision=2))
    assert _sizes(ready) == {"v1": 2}


def test_rollback_gives_the_old_set_a_new_revision() -> None:
    deployment = _deployment("v1", annotations={REVISION: "2"})
    old, current = _set(deployment, "v1", 0, revision=1), _set(deployment, "v2", 3, revision=2)
    decision = _plan(deployment, old, current)
    (step,) = decision.steps
    assert isinstance(step, ChangeSet)
    assert step.target is old
    assert step.replicas == 1
    assert step.annotations[REVISION] == "3"
    assert step.annotations[REVISION_HISTORY] == "1"
    assert decision.revision == 3


def test_paused_deployment_scales_but_does_not_roll() -> None:
    deployment = _deployment("v2", paused=True, replicas=5, annotations={REVISION: "1"})
    decision = _plan(deployment, _set(deployment, "v1", 3))
    assert _sizes(decision) == {"v1": 5}
    assert _condition(decision, "Progressing")["reason"] == "DeploymentPaused"
    assert decision.revision is None


def test_recreate_waits_for_the_last_old_pod() -> None:
    deployment = _deployment("v2", strategy={"type": "Recreate"}, annotations={REVISION: "1"})
    assert _sizes(_plan(deployment, _set(deployment, "v1", 3), old_pods_running=True)) == {"v1": 0}
    assert _plan(deployment, _set(deployment, "v1", 0), old_pods_running=True).steps == ()
    (step,) = _plan(deployment, _set(deployment, "v1", 0)).steps
    assert isinstance(step, CreateSet)
    assert step.obj["spec"]["replicas"] == 3


def test_scaling_in_mid_rollout_is_spread() -> None:
    deployment = _deployment("v2", replicas=9, annotations={REVISION: "2"})
    decision = _plan(deployment, _set(deployment, "v1", 3), _set(deployment, "v2", 1, revision=2))
    sizes = _sizes(decision)
    assert set(sizes) == {"v1", "v2"}
    assert sum(size or 0 for size in sizes.values()) == 9 + 3  # surge: 25 % of 9, rounded up
    assert all(step.annotations[DESIRED_REPLICAS] == "9" for step in decision.steps if isinstance(step, ChangeSet))


def test_history_beyond_the_limit_goes_when_the_rollout_is_complete() -> None:
    deployment = _deployment("v4", revisionHistoryLimit=1, annotations={REVISION: "4"})
    sets = [
        _set(deployment, "v1", 0, revision=1),
        _set(deployment, "v2", 0, revision=2),
        _set(deployment, "v3", 0, revision=3),
        _set(deployment, "v4", 3, revision=4),
    ]
    decision = _plan(deployment, *sets)
    assert [step.target for step in decision.steps if isinstance(step, DeleteSet)] == sets[:2]
    busy = _plan(deployment, *sets[:3], _set(deployment, "v4", 3, 2, revision=4))
    assert busy.steps == ()


def test_terminating_deployment_does_nothing() -> None:
    deployment = _deployment()
    deployment.json["metadata"]["deletionTimestamp"] = _THEN
    assert _plan(Stored(Deployment.of(deployment.json), deployment.json)).steps == ()


def test_complete_rollout_says_so_and_is_no_news_twice() -> None:
    deployment = _deployment(annotations={REVISION: "1"})
    decision = _plan(deployment, _set(deployment, "v1", 3))
    assert decision.status.is_complete
    assert _condition(decision, "Progressing")["reason"] == "NewReplicaSetAvailable"
    assert _condition(decision, "Available")["status"] == "True"
    again = _deployment(annotations={REVISION: "1"}, status=decision.status.status)
    assert same_status(again.view, _plan(again, _set(again, "v1", 3)).status.status)


def _progressing(since: str, reason: str = "ReplicaSetUpdated") -> Json:
    return {
        "conditions": [
            {
                "type": "Progressing",
                "status": "True",
                "reason": reason,
                "message": "x",
                "lastUpdateTime": since,
                "lastTransitionTime": since,
            }
        ],
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 1,
        "availableReplicas": 1,
    }


def test_deadline_runs_from_the_last_progress() -> None:
    deployment = _deployment(progressDeadlineSeconds=60, annotations={REVISION: "1"}, status=_progressing(_JUST_NOW))
    decision = _plan(deployment, _set(deployment, "v1", 3, 1))
    assert _condition(decision, "Progressing")["status"] == "True"
    assert decision.status.again_after_s == pytest.approx(40.0)


def test_rollout_that_stands_still_exceeds_its_deadline() -> None:
    deployment = _deployment(progressDeadlineSeconds=60, annotations={REVISION: "1"}, status=_progressing(_THEN))
    condition = _condition(_plan(deployment, _set(deployment, "v1", 3, 1)), "Progressing")
    assert (condition["status"], condition["reason"]) == ("False", "ProgressDeadlineExceeded")
    moved = _condition(_plan(deployment, _set(deployment, "v1", 3, 2)), "Progressing")
    assert (moved["status"], moved["reason"]) == ("True", "ReplicaSetUpdated")


def test_pod_that_dies_after_the_rollout_does_not_start_the_deadline() -> None:
    deployment = _deployment(annotations={REVISION: "1"})
    complete = _plan(deployment, _set(deployment, "v1", 3)).status.status
    later = _deployment(annotations={REVISION: "1"}, status=complete)
    decision = _plan(later, _set(later, "v1", 3, 2))
    assert _condition(decision, "Progressing")["reason"] == "NewReplicaSetAvailable"
    assert decision.status.again_after_s is None


def test_template_hash_ignores_the_hash_label_and_null_times() -> None:
    one = _template("v1")
    other = _template("v1", **{HASH_LABEL: "abc"})
    other["metadata"]["creationTimestamp"] = None
    assert template_hash(one) == template_hash(other)
    assert same_template(one, other)
    assert not same_template(one, _template("v2"))
    assert template_hash(one) != template_hash(one, 1)
