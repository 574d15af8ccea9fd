"""Defaults of a pod's spec, alone or in a template. Source: Kubernetes v1.32, core/v1 defaults."""

from collections.abc import Iterator
from typing import Any

from mesh.api.errors import QuantityError
from mesh.api.quantity import canonical_quantity
from mesh.api.resources import Json
from mesh.api.tree import copy_json

_FILE_MODE = 0o644
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_VOLUMES_WITH_MODE = ("secret", "configMap", "downwardAPI", "projected")


def default_pod_spec(spec: Json) -> None:
    """Fill `spec` in place. Fields of a wrong type are left alone."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("enableServiceLinks", True)
    _mirror_service_account(spec)
    for name in _CONTAINER_LISTS:
        for container in _items(spec, name):
            _default_container(container, uses_host_network=spec.get("hostNetwork") is True)
    for volume in _items(spec, "volumes"):
        _default_volume(volume)
    default_resource_list(spec, "overhead")


def _mirror_service_account(spec: Json) -> None:
    """serviceAccount is the old name of serviceAccountName; both are served."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def default_resource_list(holder: Any, key: str) -> None:
    """Write every valid quantity of holder[key] in canonical form."""
    amounts = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(amounts, dict):
        return
    for name, amount in amounts.items():
        try:
            amounts[name] = canonical_quantity(amount)
        except QuantityError:
            continue  # Validation names it.


def _items(holder: Json, key: str) -> Iterator[Json]:
    value = holder.get(key)
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _default_container(container: Json, *, uses_host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image")))
    resources = container.setdefault("resources", {})
    if isinstance(resources, dict):
        _default_resources(resources)
    for port in _items(container, "ports"):
        port.setdefault("protocol", "TCP")
        if uses_host_network and "containerPort" in port:
            port.setdefault("hostPort", port["containerPort"])
    for variable in _items(container, "env"):
        source = variable.get("valueFrom")
        if isinstance(source, dict):
            _default_field_source(source)
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            _default_probe(container[name])
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, dict):
        for handler in lifecycle.values():
            _default_http_get(handler)


def _pull_policy(image: Any) -> str:
    """Always for an image without a tag or with `latest`, unless it is pinned by digest; else IfNotPresent."""
    if not isinstance(image, str) or "@" in image:
        return "IfNotPresent"
    last = image.rsplit("/", 1)[-1]
    return "Always" if ":" not in last or last.endswith(":latest") else "IfNotPresent"


def _default_resources(resources: Json) -> None:
    default_resource_list(resources, "limits")
    default_resource_list(resources, "requests")
    limits = resources.get("limits")
    if isinstance(limits, dict) and limits:
        requests = resources.setdefault("requests", {})
        if isinstance(requests, dict):
            for name, amount in limits.items():
                requests.setdefault(name, copy_json(amount))


def _default_probe(probe: Json) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _default_http_get(probe)
    grpc = probe.get("grpc")
    if isinstance(grpc, dict):
        grpc.setdefault("service", "")


def _default_http_get(handler: Any) -> None:
    action = handler.get("httpGet") if isinstance(handler, dict) else None
    if isinstance(action, dict):
        action.setdefault("path", "/")
        action.setdefault("scheme", "HTTP")


def _default_field_source(source: Json) -> None:
    if isinstance(field_ref := source.get("fieldRef"), dict):
        field_ref.setdefault("apiVersion", "v1")
    if isinstance(resource_ref := source.get("resourceFieldRef"), dict):
        resource_ref.setdefault("divisor", "0")


def _default_volume(volume: Json) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for name in _VOLUMES_WITH_MODE:
        if isinstance(source := volume.get(name), dict):
            source.setdefault("defaultMode", _FILE_MODE)
    if isinstance(host_path := volume.get("hostPath"), dict):
        host_path.setdefault("type", "")
    if isinstance(downward := volume.get("downwardAPI"), dict):
        for item in _items(downward, "items"):
            _default_field_source(item)
