"""What the server itself sets on objects: identity, generation, first status, and which part a write may change. Pure."""

from datetime import UTC, datetime

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind
from mesh.api.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, SERVICES, Json

NAMESPACE_FINALIZER = "kubernetes"
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_KEEPS_STATUS_ON_CREATE = frozenset({NODES.key})
_STATUS_WRITES_METADATA = frozenset({PODS.key, NODES.key, NAMESPACES.key, SERVICES.key})
"""Kinds whose status writes may change labels and annotations too. Source: their strategies in Kubernetes."""
_SERVER_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_DROPPED_METADATA = ("selfLink", "managedFields")
_NOT_SPEC = frozenset({"apiVersion", "kind", "metadata", "status"})


def timestamp(wall_s: float) -> str:
    """RFC 3339 in whole seconds, as metav1.Time writes it."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prepare_create(kind: Kind, obj: Json, *, uid: str, now: str) -> None:
    """Make `obj` a new object, in place. Raises ApiStatusError (400) for a resourceVersion."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion"):
        raise errors.bad_request("resourceVersion should not be set on objects to be created")
    for name in (*_SERVER_METADATA, *_DROPPED_METADATA, "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = now
    if "spec" in obj:
        metadata["generation"] = 1
    if kind.has_status and kind.resource.key not in _KEEPS_STATUS_ON_CREATE:
        obj.pop("status", None)
    match kind.resource.key:
        case PODS.key:
            obj["status"] = {"phase": "Pending"}
        case NAMESPACES.key:
            _new_namespace(obj)
        case SERVICES.key:
            obj["status"] = {"loadBalancer": {}}
        case CUSTOM_RESOURCE_DEFINITIONS.key:
            metadata["finalizers"] = [*(metadata.get("finalizers") or ()), CRD_FINALIZER]


def _new_namespace(namespace: Json) -> None:
    metadata = namespace["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    namespace["spec"] = {**(namespace.get("spec") or {}), "finalizers": [NAMESPACE_FINALIZER]}
    namespace["status"] = {"phase": "Active"}


def prepare_update(kind: Kind, new: Json, old: Json, subresource: str) -> Json:
    """The object to store when `new` is asked for through `subresource` ("" is the object itself)."""
    if subresource == "status":
        return _status_update(kind, new, old)
    if subresource == "binding":
        return new
    if subresource == "finalize":
        return {**old, "spec": {**(old.get("spec") or {}), **(new.get("spec") or {})}}
    _keep_server_metadata(new, old)
    if kind.has_status:
        _keep(new, old, "status")
    if kind.resource.key == NAMESPACES.key:
        _keep(new, old, "spec")
    if "spec" in new or "spec" in old:
        new["metadata"]["generation"] = next_generation(new, old)
    return new


def _status_update(kind: Kind, new: Json, old: Json) -> Json:
    result = dict(old)
    _keep(result, new, "status")
    metadata = dict(old["metadata"])
    if kind.resource.key in _STATUS_WRITES_METADATA:
        for name in ("labels", "annotations"):
            _keep(metadata, new["metadata"], name)
    result["metadata"] = metadata
    return result


def _keep_server_metadata(new: Json, old: Json) -> None:
    metadata = new["metadata"]
    for name in _SERVER_METADATA:
        _keep(metadata, old["metadata"], name)
    for name in _DROPPED_METADATA:
        metadata.pop(name, None)


def _keep(target: Json, source: Json, name: str) -> None:
    """`target` has of `name` what `source` has, or nothing."""
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def next_generation(new: Json, old: Json) -> int:
    """One more than before when anything but metadata and status differs."""
    before = int(old["metadata"].get("generation") or 1)
    fields = (set(new) | set(old)) - _NOT_SPEC
    return before + any(new.get(name) != old.get(name) for name in fields)
