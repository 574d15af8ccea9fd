"""A Deployment's ReplicaSets as its history: the template hash, equal templates, revision numbers. Pure.

What `kubectl rollout history` and `undo` read: owner references and the annotation deployment.kubernetes.io/revision.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.controllers.caches import Stored
from controlplane.controllers.pods import parse_time
from mesh.api.apps import Deployment, ReplicaSet
from mesh.api.resources import Json

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as in Kubernetes' generated names."""

StoredSet = Stored[ReplicaSet]


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Ten letters that depend on the template's content and the number of name collisions so far."""
    text = json.dumps(_comparable(template), sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(f"{collisions}:{text}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def same_template(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal but for the hash label that the controller adds."""
    return _comparable(one) == _comparable(other)


def _comparable(template: Mapping[str, Any]) -> Json:
    meta = {k: v for k, v in (template.get("metadata") or {}).items() if v and k != "creationTimestamp"}
    labels = {k: v for k, v in (meta.pop("labels", None) or {}).items() if k != HASH_LABEL}
    return {"metadata": meta, "labels": labels, "spec": template.get("spec") or {}}


def find_new_set(template: Mapping[str, Any], sets: Iterable[StoredSet]) -> StoredSet | None:
    """The set whose template is the Deployment's; the oldest when there are several."""
    same = [item for item in sets if same_template(template, item.json["spec"]["template"])]
    return min(same, key=lambda item: (created_at(item), item.view.metadata.name), default=None)


def revision_of(item: StoredSet) -> int:
    """The set's number in the history; 0 when it has none."""
    text = item.view.metadata.annotations.get(REVISION, "0")
    return int(text) if text.isdecimal() else 0


def next_revision(old: Sequence[StoredSet]) -> int:
    """The newest set's number: one more than any older one."""
    return max((revision_of(item) for item in old), default=0) + 1


def created_at(item: StoredSet) -> float:
    """Wall seconds."""
    return parse_time(item.view.metadata.creation_timestamp)


def set_annotations(deployment: Deployment, item: StoredSet | None, revision: int) -> dict[str, str]:
    """The annotations of the newest set: the Deployment's own (change-cause among them), its revision, past revisions."""
    copied = {k: v for k, v in deployment.metadata.annotations.items() if k not in _NOT_COPIED}
    if item is None:
        return {**copied, REVISION: str(revision)}
    before = dict(item.view.metadata.annotations)
    result = {**{k: v for k, v in before.items() if k in _NOT_COPIED}, **copied, REVISION: str(revision)}
    old = revision_of(item)
    if old and old != revision:
        past = [part for part in before.get(REVISION_HISTORY, "").split(",") if part]
        result[REVISION_HISTORY] = ",".join([*past, str(old)][-50:])
    return result


def new_set_object(deployment: Stored[Deployment], replicas: int, annotations: Mapping[str, str]) -> Json:
    """The ReplicaSet of the Deployment's present template."""
    view, obj = deployment.view, deployment.json
    template = obj["spec"]["template"]
    digest = template_hash(template, view.status.collision_count)
    labels = {**(template.get("metadata", {}).get("labels") or {}), HASH_LABEL: digest}
    selector = obj["spec"].get("selector") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{view.metadata.name}-{digest}",
            "namespace": view.metadata.namespace,
            "labels": labels,
            "annotations": dict(annotations),
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": view.metadata.name,
                    "uid": view.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": view.spec.min_ready_seconds,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}},
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }


def surplus_sets(old: Sequence[StoredSet], limit: int) -> list[StoredSet]:
    """Old, empty sets beyond the history limit, lowest revision first."""
    empty = [
        item
        for item in old
        if item.view.spec.replicas == 0
        and item.view.status.replicas == 0
        and item.view.metadata.generation <= item.view.status.observed_generation
        and not item.view.metadata.is_terminating
    ]
    count = len(empty) - max(0, limit)
    return sorted(empty, key=lambda item: (revision_of(item), created_at(item)))[: max(0, count)]
