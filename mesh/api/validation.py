"""What an object must mean, beyond its structure: names, ports, selectors that match, fields that may not change.

Entry point: `validate_object(resource, obj, old) -> tuple[FieldError, ...]`. The object has passed `SchemaRegistry.validate` and
`apply_defaults` first. Custom resources and policies get the metadata checks; what a policy means is checked in `policies`.
Source: Kubernetes v1.32, pkg/apis/*/validation semantics.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mesh.api.errors import FieldError, duplicate, forbidden, invalid, required
from mesh.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICES,
    Json,
    Resource,
)
from mesh.api.tree import child_path, item_path
from mesh.api.validation_cluster import (
    validate_custom_resource_definition,
    validate_event,
    validate_lease,
    validate_node,
)
from mesh.api.validation_data import validate_config_map, validate_secret
from mesh.api.validation_names import (
    check_dns_1035_label,
    check_dns_label,
    check_dns_subdomain,
    check_labels,
    check_qualified_name,
)
from mesh.api.validation_pod import validate_pod
from mesh.api.validation_service import validate_endpoint_slice, validate_endpoints, validate_service
from mesh.api.validation_workload import (
    validate_deployment,
    validate_replica_set,
    validate_replication_controller,
)

MAX_ANNOTATIONS_BYTES = 256 * 1024
"""Keys and values together."""
_KEPT_METADATA = ("name", "namespace", "uid", "creationTimestamp")

Check = Callable[[Json, Json | None], list[FieldError]]
NameCheck = Callable[[Any, str], list[FieldError]]


def validate_object(resource: Resource, obj: Json, old: Json | None = None) -> tuple[FieldError, ...]:
    """Everything wrong with `obj`; () when it may be stored. With `old`, the stored object, also what may not change."""
    errors = _check_metadata(resource, obj, old)
    check = _CHECKS.get(resource.key)
    if check is not None:
        errors += check(obj, old)
    return tuple(errors)


def _check_metadata(resource: Resource, obj: Json, old: Json | None) -> list[FieldError]:
    metadata = obj.get("metadata") or {}
    check_name: NameCheck = _NAME_RULES.get(resource.key, check_dns_subdomain)
    errors: list[FieldError] = []
    if metadata.get("name"):
        errors += check_name(metadata["name"], "metadata.name")
    elif metadata.get("generateName"):
        errors += check_name(metadata["generateName"].rstrip("-") or "-", "metadata.generateName")
    else:
        errors.append(required("metadata.name", "name or generateName is required"))
    if resource.is_namespaced:
        errors += check_dns_label(metadata.get("namespace"), "metadata.namespace")
    elif metadata.get("namespace"):
        errors.append(forbidden("metadata.namespace", "not allowed on this type, which is cluster-scoped"))
    errors += check_labels(metadata.get("labels"), "metadata.labels")
    errors += _check_annotations(metadata)
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        errors += check_qualified_name(finalizer, item_path("metadata.finalizers", index))
    errors += _check_owners(metadata)
    if old is not None:
        errors += _check_kept_metadata(metadata, old.get("metadata") or {})
    return errors


def _check_annotations(metadata: Json) -> list[FieldError]:
    annotations = metadata.get("annotations") or {}
    errors = [error for key in annotations for error in check_qualified_name(key, "metadata.annotations")]
    size = sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS_BYTES:
        detail = f"annotations have {size} bytes, at most {MAX_ANNOTATIONS_BYTES} are taken"
        errors.append(forbidden("metadata.annotations", detail))
    return errors


def _check_owners(metadata: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        path = item_path("metadata.ownerReferences", index)
        errors += [
            required(f"{path}.{field}") for field in ("apiVersion", "kind", "name", "uid") if not owner.get(field)
        ]
        if owner.get("controller"):
            if controller:
                detail = f"Only one reference can have Controller set to true; {controller} has it too"
                errors.append(invalid("metadata.ownerReferences", owner.get("name"), detail))
            controller = str(owner.get("name"))
    return errors


def _check_kept_metadata(new: Json, old: Json) -> list[FieldError]:
    errors = [
        invalid(child_path("metadata", field), new[field], "field is immutable")
        for field in _KEPT_METADATA
        if new.get(field) and new[field] != old.get(field)
    ]
    if old.get("deletionTimestamp"):
        added = [f for f in new.get("finalizers") or () if f not in (old.get("finalizers") or ())]
        errors += [
            forbidden("metadata.finalizers", f"no new finalizers can be added while the object is deleted: {name}")
            for name in added
        ]
    finalizers = new.get("finalizers") or []
    errors += [duplicate("metadata.finalizers", name) for name in {f for f in finalizers if finalizers.count(f) > 1}]
    return errors


_NAME_RULES: Mapping[tuple[str, str], NameCheck] = {
    NAMESPACES.key: check_dns_label,
    SERVICES.key: check_dns_1035_label,
}

_CHECKS: Mapping[tuple[str, str], Check] = {
    PODS.key: validate_pod,
    SERVICES.key: validate_service,
    ENDPOINTS.key: validate_endpoints,
    ENDPOINT_SLICES.key: validate_endpoint_slice,
    DEPLOYMENTS.key: validate_deployment,
    REPLICA_SETS.key: validate_replica_set,
    REPLICATION_CONTROLLERS.key: validate_replication_controller,
    CONFIG_MAPS.key: validate_config_map,
    SECRETS.key: validate_secret,
    NODES.key: validate_node,
    EVENTS.key: validate_event,
    LEASES.key: validate_lease,
    CUSTOM_RESOURCE_DEFINITIONS.key: validate_custom_resource_definition,
}
