"""Pod, and the pod spec of templates. Containers: `validation_container`; placement: `validation_placement`."""

from typing import Any

from mesh.api.errors import FieldError, duplicate, forbidden, invalid, required
from mesh.api.patch import same_json
from mesh.api.resources import Json
from mesh.api.tree import copy_json, item_path
from mesh.api.validation_container import check_container
from mesh.api.validation_names import (
    check_choice,
    check_dns_label,
    check_dns_subdomain,
    check_ip,
    check_one_of,
    check_qualified_name,
    check_range,
    check_unique,
)
from mesh.api.validation_placement import check_affinity, check_node_selector_labels, check_tolerations
from mesh.api.validation_resources import check_quantity

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_NOT_CHANGED = (
    "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
    "`spec.activeDeadlineSeconds`, `spec.tolerations` (only additions), `spec.terminationGracePeriodSeconds`"
)


def validate_pod(pod: Json, old: Json | None) -> list[FieldError]:
    """The spec; with `old`, also what may not change.

    DEVIATION: setting an empty nodeName is let pass here, since the binding subresource stores through the same check.
    """
    spec = pod.get("spec") or {}
    errors = check_pod_spec(spec, "spec")
    if old is not None:
        errors += _check_update(spec, old.get("spec") or {})
    return errors


def check_pod_spec(spec: Json, path: str) -> list[FieldError]:
    """A pod's spec, alone or in a template."""
    errors = check_choice(spec.get("restartPolicy"), f"{path}.restartPolicy", RESTART_POLICIES)
    errors += check_choice(spec.get("dnsPolicy"), f"{path}.dnsPolicy", DNS_POLICIES)
    errors += check_range(spec.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds", 0)
    errors += check_range(spec.get("activeDeadlineSeconds"), f"{path}.activeDeadlineSeconds", 1, 2**31 - 1)
    errors += _check_volumes(spec, path)
    errors += _check_containers(spec, path)
    errors += _check_pod_names(spec, path)
    errors += check_node_selector_labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    errors += check_affinity(spec.get("affinity") or {}, f"{path}.affinity")
    errors += check_tolerations(spec.get("tolerations") or [], f"{path}.tolerations")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        errors += check_ip(alias.get("ip"), f"{path}.hostAliases[{index}].ip")
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        errors.append(required(f"{path}.dnsConfig.nameservers", "needed when `dnsPolicy` is None"))
    return errors


def _check_pod_names(spec: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("nodeName", "serviceAccountName", "priorityClassName"):
        if spec.get(field):
            errors += check_dns_subdomain(spec[field], f"{path}.{field}")
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            errors += check_dns_label(spec[field], f"{path}.{field}")
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        errors += check_dns_subdomain(secret.get("name"), f"{path}.imagePullSecrets[{index}].name")
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        errors += check_qualified_name(gate.get("conditionType"), f"{path}.readinessGates[{index}].conditionType")
    return errors


def _check_containers(spec: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    volumes = frozenset(volume.get("name") for volume in spec.get("volumes") or ())
    uses_host_network = spec.get("hostNetwork") is True
    if not spec.get("containers"):
        errors.append(required(f"{path}.containers"))
    names: list[Any] = []
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            place = item_path(f"{path}.{field}", index)
            errors += check_container(container, place, volumes, is_init=field == "initContainers")
            if container.get("name") in names:
                errors.append(duplicate(f"{place}.name", container["name"]))
            names.append(container.get("name"))
            if uses_host_network:
                errors += _check_host_ports(container, place)
    return errors


def _check_host_ports(container: Json, path: str) -> list[FieldError]:
    return [
        invalid(
            f"{path}.ports[{i}].hostPort", port["hostPort"], "must match `containerPort` when `hostNetwork` is true"
        )
        for i, port in enumerate(container.get("ports") or ())
        if port.get("hostPort") and port["hostPort"] != port.get("containerPort")
    ]


_SOURCES_WITH_ITEMS = ("configMap", "secret", "downwardAPI", "projected")


def _check_volumes(spec: Json, path: str) -> list[FieldError]:
    volumes = spec.get("volumes") or []
    errors: list[FieldError] = []
    for index, volume in enumerate(volumes):
        place = item_path(f"{path}.volumes", index)
        errors += check_dns_label(volume.get("name"), f"{place}.name")
        sources = sorted(name for name in volume if name != "name")
        errors += check_one_of(volume, place, sources or ("emptyDir",), "volume type")
        errors += _check_volume_source(volume, place)
    return errors + check_unique((volume.get("name") for volume in volumes), f"{path}.volumes", "name")


def _check_volume_source(volume: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if (config_map := volume.get("configMap")) is not None and not config_map.get("name"):
        errors.append(required(f"{path}.configMap.name"))
    if (secret := volume.get("secret")) is not None and not secret.get("secretName"):
        errors.append(required(f"{path}.secret.secretName"))
    if (host_path := volume.get("hostPath")) is not None:
        if not host_path.get("path"):
            errors.append(required(f"{path}.hostPath.path"))
        elif ".." in host_path["path"].split("/"):
            errors.append(invalid(f"{path}.hostPath.path", host_path["path"], "must not contain '..'"))
    if (empty := volume.get("emptyDir")) is not None and empty.get("sizeLimit") is not None:
        errors += check_quantity(empty["sizeLimit"], f"{path}.emptyDir.sizeLimit")
    for name in _SOURCES_WITH_ITEMS:
        if isinstance(source := volume.get(name), dict):
            errors += _check_files(source, f"{path}.{name}")
    return errors


def _check_files(source: Json, path: str) -> list[FieldError]:
    errors = check_range(source.get("defaultMode"), f"{path}.defaultMode", 0, 0o777)
    for index, item in enumerate(source.get("items") or ()):
        place = item_path(f"{path}.items", index)
        errors += check_range(item.get("mode"), f"{place}.mode", 0, 0o777)
        file_path = item.get("path") or ""
        if not file_path:
            errors.append(required(f"{place}.path"))
        elif file_path.startswith("/") or ".." in file_path.split("/"):
            errors.append(invalid(f"{place}.path", file_path, "must be a relative path without '..'"))
    return errors


def _check_update(spec: Json, old: Json) -> list[FieldError]:
    kept = copy_json(spec)
    kept.pop("activeDeadlineSeconds", None)
    for field in ("activeDeadlineSeconds", "terminationGracePeriodSeconds"):
        kept.pop(field, None)
        if field in old:
            kept[field] = old[field]
    if not old.get("nodeName"):
        kept.pop("nodeName", None)
        if "nodeName" in old:
            kept["nodeName"] = old["nodeName"]
    _restore(
        kept, "tolerations", old, [t for t in old.get("tolerations") or () if t in (spec.get("tolerations") or ())]
    )
    for field in ("containers", "initContainers"):
        for new_one, old_one in zip(kept.get(field) or (), old.get(field) or (), strict=False):
            if "image" in old_one:
                new_one["image"] = old_one["image"]
            if "imagePullPolicy" in old_one:
                new_one["imagePullPolicy"] = old_one["imagePullPolicy"]
    if same_json(kept, old):
        return []
    changed = sorted(key for key in kept.keys() | old.keys() if kept.get(key) != old.get(key))
    return [forbidden("spec", f"{_NOT_CHANGED}; changed: {', '.join(changed)}")]


def _restore(kept: Json, field: str, old: Json, value: list[Any]) -> None:
    """Only additions are allowed: what is left of the old list must be all of it."""
    if value or field in old:
        kept[field] = value
    else:
        kept.pop(field, None)
