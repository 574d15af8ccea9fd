"""The scale subresource: one number and a selector, whatever the kind. Pure."""

from typing import Any

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind, ScalePaths
from controlplane.apiserver.objects import copied
from controlplane.apiserver.tables.columns import selector_text
from controlplane.apiserver.tables.paths import keys_of, value_at
from mesh.api.resources import REPLICATION_CONTROLLERS, Json

_BUILTIN = ScalePaths()
MAX_REPLICAS = 2**31 - 1


def scale_of(kind: Kind, obj: Json) -> Json:
    """The Scale object of `obj` (autoscaling/v1)."""
    paths = kind.scale or _BUILTIN
    metadata = obj["metadata"]
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": value_at(obj, paths.status_replicas) or 0}
    if selector := _selector(kind, paths, obj):
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in shown if name in metadata},
        "spec": {"replicas": value_at(obj, paths.spec_replicas) or 0},
        "status": status,
    }


def _selector(kind: Kind, paths: ScalePaths, obj: Json) -> str:
    if paths.selector:
        return str(value_at(obj, paths.selector) or "")
    selector: Any = value_at(obj, ".spec.selector")
    if kind.resource.key == REPLICATION_CONTROLLERS.key:
        selector = {"matchLabels": selector or {}}
    return "" if kind.is_custom or not selector else selector_text(selector)


def with_scale(kind: Kind, obj: Json, scale: Json) -> Json:
    """`obj` with the replicas of `scale`, and its resourceVersion, if it says one, for the conflict check."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas <= MAX_REPLICAS:
        wrong = errors.cause(
            "spec.replicas", f"Invalid value: {replicas!r}: must be a whole number from 0 to {MAX_REPLICAS}"
        )
        raise errors.invalid(kind.resource, obj["metadata"]["name"], [wrong])
    result = copied(obj)
    *parents, last = keys_of((kind.scale or _BUILTIN).spec_replicas)
    holder = result
    for key in parents:
        holder = holder.setdefault(key, {})
    holder[last] = replicas
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version:
        result["metadata"]["resourceVersion"] = version
    return result
