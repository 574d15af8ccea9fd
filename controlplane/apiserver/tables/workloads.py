"""The columns of Deployments, ReplicaSets and ReplicationControllers."""

from controlplane.apiserver.tables.columns import (
    AGE,
    NAME,
    Cell,
    Column,
    at,
    containers,
    count,
    pairs,
    selector_text,
    wide,
)
from mesh.api.resources import Json

_TEMPLATE = ("spec", "template", "spec")


def _ready(obj: Json, _now_s: float) -> Cell:
    wanted = at(obj, "spec", "replicas")
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{0 if wanted is None else wanted}"


def _selector(obj: Json, _now_s: float) -> Cell:
    return selector_text(at(obj, "spec", "selector"))


def _map_selector(obj: Json, _now_s: float) -> Cell:
    return pairs(at(obj, "spec", "selector"))


DEPLOYMENTS_COLUMNS = (
    NAME,
    Column("Ready", _ready, description="Ready pods of wanted pods."),
    Column("Up-to-date", count("status", "updatedReplicas"), "integer"),
    Column("Available", count("status", "availableReplicas"), "integer"),
    AGE,
    *containers(*_TEMPLATE),
    wide("Selector", _selector),
)

_REPLICAS = (
    NAME,
    Column("Desired", count("spec", "replicas"), "integer"),
    Column("Current", count("status", "replicas"), "integer"),
    Column("Ready", count("status", "readyReplicas"), "integer"),
    AGE,
    *containers(*_TEMPLATE),
)
REPLICA_SETS_COLUMNS = (*_REPLICAS, wide("Selector", _selector))
REPLICATION_CONTROLLERS_COLUMNS = (*_REPLICAS, wide("Selector", _map_selector))
