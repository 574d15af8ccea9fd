"""Kubernetes' defaulting: what the server fills in before it validates and stores an object.

Entry point: `apply_defaults(resource, obj) -> Json`. Defaulting twice gives the same object. Custom resources take their defaults
from their schema: `SchemaRegistry.apply_schema_defaults`. Source: Kubernetes v1.32, pkg/apis/*/v1/defaults.go semantics.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from mesh.api.defaults_pod import default_pod_spec, default_resource_list
from mesh.api.resources import (
    BUILTIN,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
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
from mesh.api.tree import copy_json, look_up, without_nulls

_SESSION_TIMEOUT_S = 10800
_TYPED = frozenset(resource.key for resource in BUILTIN) - {CUSTOM_RESOURCE_DEFINITIONS.key}
"""Kinds where null means absent. Custom resources may have nullable fields, and their definitions' schemas null defaults."""


def apply_defaults(resource: Resource, obj: Json) -> Json:
    """A copy of `obj` with defaults filled in, null fields dropped and quantities in canonical form. Fields of a wrong type are left
    for validation to name."""
    if resource.key in _TYPED:
        result: Json = without_nulls(obj)
    else:
        result = copy_json(obj)
    apply = _DEFAULTS.get(resource.key)
    if apply is not None:
        apply(result)
    return result


def _object(holder: Any, key: str) -> Json | None:
    """holder[key] when it is an object; made when it is missing; None when it is something else."""
    if not isinstance(holder, dict):
        return None
    value = holder.setdefault(key, {})
    return value if isinstance(value, dict) else None


def _items(holder: Any, key: str) -> list[Json]:
    value = holder.get(key) if isinstance(holder, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _default_pod(pod: Json) -> None:
    spec = _object(pod, "spec")
    if spec is not None:
        default_pod_spec(spec)


def _default_template(spec: Json) -> None:
    template_spec = look_up(spec, "template", "spec")
    if isinstance(template_spec, dict):
        default_pod_spec(template_spec)


def _default_deployment(deployment: Json) -> None:
    spec = _object(deployment, "spec")
    if spec is None:
        return
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = _object(spec, "strategy")
    if strategy is not None:
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate" and (rolling := _object(strategy, "rollingUpdate")) is not None:
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
    _default_template(spec)


def _default_replica_set(replica_set: Json) -> None:
    spec = _object(replica_set, "spec")
    if spec is not None:
        spec.setdefault("replicas", 1)
        _default_template(spec)


def _default_replication_controller(controller: Json) -> None:
    spec = _object(controller, "spec")
    if spec is None:
        return
    spec.setdefault("replicas", 1)
    labels = look_up(spec, "template", "metadata", "labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = copy_json(labels)
        if not look_up(controller, "metadata", "labels") and (metadata := _object(controller, "metadata")) is not None:
            metadata["labels"] = copy_json(labels)
    _default_template(spec)


def _default_service(service: Json) -> None:
    spec = _object(service, "spec")
    if spec is None:
        return
    kind = spec.setdefault("type", "ClusterIP")
    affinity = spec.setdefault("sessionAffinity", "None")
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP" and (config := _object(spec, "sessionAffinityConfig")) is not None:
        client_ip = _object(config, "clientIP")
        if client_ip is not None:
            client_ip.setdefault("timeoutSeconds", _SESSION_TIMEOUT_S)
    for port in _items(spec, "ports"):
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort") and "port" in port:
            port["targetPort"] = port["port"]
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")


def _default_namespace(namespace: Json) -> None:
    name = look_up(namespace, "metadata", "name")
    metadata = _object(namespace, "metadata")
    labels = _object(metadata, "labels")
    if name and labels is not None:
        labels["kubernetes.io/metadata.name"] = name


def _default_secret(secret: Json) -> None:
    secret.setdefault("type", "Opaque")
    texts = secret.get("stringData")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        return
    data = _object(secret, "data")
    if data is not None:
        data.update({key: base64.b64encode(text.encode()).decode() for key, text in texts.items()})
        del secret["stringData"]


def _default_node(node: Json) -> None:
    status = node.get("status")
    if not isinstance(status, dict):
        return
    if "capacity" in status and "allocatable" not in status:
        status["allocatable"] = copy_json(status["capacity"])
    for name in ("capacity", "allocatable"):
        default_resource_list(status, name)


def _default_endpoints(endpoints: Json) -> None:
    for subset in _items(endpoints, "subsets"):
        for port in _items(subset, "ports"):
            port.setdefault("protocol", "TCP")


def _default_endpoint_slice(endpoint_slice: Json) -> None:
    for port in _items(endpoint_slice, "ports"):
        port.setdefault("protocol", "TCP")
        port.setdefault("name", "")


def _default_custom_resource_definition(definition: Json) -> None:
    spec = definition.get("spec")
    names = look_up(spec, "names")
    if not isinstance(spec, dict) or not isinstance(names, dict) or not isinstance(names.get("kind"), str):
        return
    if not names.get("singular"):
        names["singular"] = names["kind"].lower()
    if not names.get("listKind"):
        names["listKind"] = f"{names['kind']}List"
    if not spec.get("conversion"):
        spec["conversion"] = {"strategy": "None"}


_DEFAULTS: Mapping[tuple[str, str], Callable[[Json], None]] = {
    PODS.key: _default_pod,
    DEPLOYMENTS.key: _default_deployment,
    REPLICA_SETS.key: _default_replica_set,
    REPLICATION_CONTROLLERS.key: _default_replication_controller,
    SERVICES.key: _default_service,
    NAMESPACES.key: _default_namespace,
    SECRETS.key: _default_secret,
    NODES.key: _default_node,
    ENDPOINTS.key: _default_endpoints,
    ENDPOINT_SLICES.key: _default_endpoint_slice,
    CUSTOM_RESOURCE_DEFINITIONS.key: _default_custom_resource_definition,
}
