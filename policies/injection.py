"""Which pods join the mesh, and what joining adds to a pod. Pure: JSON in, new JSON out; the input is never changed.

The sidecar is a native one (an init container with restartPolicy Always), the first of the init containers: the later
ones and the app start once it holds its first complete configuration, and it ends after them, so that Jobs complete.
Source: Kubernetes, "Sidecar Containers"; Istio, "Controlling the injection policy".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.api.resources import Json
from policies.errors import InjectionError

CONTAINER = "mesh-proxy"
INJECT_KEY = "sidecar.istio.io/inject"
"""Label or annotation of a pod: "true" or "false". The label wins."""
NAMESPACE_LABEL = "istio-injection"
REVISION_LABEL = "istio.io/rev"
STATUS_ANNOTATION = "sidecar.istio.io/status"
INTERCEPTION_ANNOTATION = "meshwork.dev/interception"
NEVER_INJECTED = frozenset({"kube-system", "kube-public", "kube-node-lease", "meshwork-system"})
_TEMPLATE_PATHS: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionConfig:
    """What the sidecar is and whom it asks for its configuration."""

    image: str = "meshwork/sidecar"
    discovery_address: str = "172.30.0.1:15012"
    """host:port of the ADS server as pods reach it."""
    ca_file: str = f"{_TOKEN_FOLDER}/ca.crt"
    token_file: str = f"{_TOKEN_FOLDER}/token"
    concurrency: int = 1
    """Event loops, >= 1."""
    cpu_request: str = "10m"
    memory_request: str = "24Mi"


DEFAULT_CONFIG = InjectionConfig()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a pod joins, and why."""

    injects: bool
    reason: str
    """A sentence for people."""


def decide(pod: Json, namespace: str, namespace_labels: Mapping[str, str]) -> Decision:
    """Whether this pod (or pod template) of `namespace` gets a sidecar.

    DEVIATION: in Istio the annotation alone does nothing in a namespace without the label; here it counts like the label.
    """
    if (pod.get("spec") or {}).get("hostNetwork"):
        return Decision(False, "the pod uses the node's network (hostNetwork: true)")
    if namespace in NEVER_INJECTED:
        return Decision(False, f"namespace {namespace} never takes part")
    meta = pod.get("metadata") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    asked = str(labels.get(INJECT_KEY, annotations.get(INJECT_KEY, ""))).lower()
    if asked == "false":
        return Decision(False, f"the pod says {INJECT_KEY}: false")
    if namespace_labels.get(NAMESPACE_LABEL) == "disabled":
        return Decision(False, f"namespace {namespace} is labelled {NAMESPACE_LABEL}=disabled")
    if asked == "true":
        return Decision(True, f"the pod says {INJECT_KEY}: true")
    if namespace_labels.get(NAMESPACE_LABEL) == "enabled":
        return Decision(True, f"namespace {namespace} is labelled {NAMESPACE_LABEL}=enabled")
    if REVISION_LABEL in namespace_labels or REVISION_LABEL in labels:
        return Decision(True, f"{REVISION_LABEL} is set")
    return Decision(False, f"neither the pod nor namespace {namespace} asks for a sidecar")


def inject_pod(pod: Json, config: InjectionConfig = DEFAULT_CONFIG, *, workload: str = "") -> Json:
    """The pod (or pod template) with the sidecar; a pod that has one is returned as it is.

    `workload` overrides the name the pod's traffic is counted under; otherwise it follows from the owner.
    Raises InjectionError when the sidecar could not work: no service account token, or the container's name is taken.
    """
    spec = pod.get("spec") or {}
    if any(c.get("name") == CONTAINER for c in spec.get("initContainers") or ()):
        return pod
    if any(c.get("name") == CONTAINER for c in spec.get("containers") or ()):
        raise InjectionError(
            f'spec.containers: the name "{CONTAINER}" belongs to the sidecar; rename the container, or set {INJECT_KEY}: "false"'
        )
    if spec.get("automountServiceAccountToken") is False:
        raise InjectionError(
            "spec.automountServiceAccountToken: the sidecar proves its identity with the service account token; "
            f'remove the field, or set the label {INJECT_KEY}: "false"'
        )
    meta = dict(pod.get("metadata") or {})
    labels = dict(meta.get("labels") or {})
    container = _container(config, labels, workload or workload_name(pod), spec)
    annotations = dict(meta.get("annotations") or {})
    annotations[STATUS_ANNOTATION] = json.dumps(
        {"initContainers": [CONTAINER], "containers": [], "revision": "default"}
    )
    annotations.setdefault(INTERCEPTION_ANNOTATION, "redirect")
    meta["annotations"] = annotations
    new_spec = {**spec, "initContainers": [container, *(spec.get("initContainers") or ())]}
    return {**pod, "metadata": meta, "spec": new_spec}


def inject_manifest(obj: Json, config: InjectionConfig = DEFAULT_CONFIG) -> Json:
    """The manifest with the sidecar in its pod or pod template, unless the pod opts out; lists item by item.

    Kinds without pods are returned unchanged. Raises InjectionError with the field path.
    """
    kind = str(obj.get("kind", ""))
    if kind.endswith("List") and isinstance(obj.get("items"), list):
        return {**obj, "items": [inject_manifest(item, config) for item in obj["items"]]}
    if kind == "Pod":
        return _unless_opted_out(obj, obj, config, "")
    path = _TEMPLATE_PATHS.get(kind)
    return obj if path is None else _replace(obj, path, obj, config)


def _replace(node: Json, path: tuple[str, ...], obj: Json, config: InjectionConfig) -> Json:
    if not path:
        workload = str((obj.get("metadata") or {}).get("name", ""))
        return _unless_opted_out(node, obj, config, workload)
    child = node.get(path[0])
    return {**node, path[0]: _replace(child, path[1:], obj, config)} if isinstance(child, dict) else node


def _unless_opted_out(pod: Json, obj: Json, config: InjectionConfig, workload: str) -> Json:
    namespace = str((obj.get("metadata") or {}).get("namespace") or "default")
    if not decide(pod, namespace, {NAMESPACE_LABEL: "enabled"}).injects:
        return pod
    return inject_pod(pod, config, workload=workload)


def workload_name(pod: Json) -> str:
    """What a pod's traffic is counted under: its Deployment, its other owner, or itself."""
    meta = pod.get("metadata") or {}
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller"):
            return _without_hash(str(owner.get("kind", "")), str(owner.get("name", "")), meta.get("labels") or {})
    return str(meta.get("name") or str(meta.get("generateName") or "").rstrip("-"))


def _without_hash(kind: str, name: str, labels: Mapping[str, str]) -> str:
    suffix = f"-{labels.get('pod-template-hash', '')}"
    if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
        return name.removesuffix(suffix)
    return name


def _container(config: InjectionConfig, labels: Mapping[str, str], workload: str, spec: Json) -> Json:
    apps = [str(c.get("name", "")) for c in spec.get("containers") or ()]
    probe: Json = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "timeoutSeconds": 3}
    return {
        "name": CONTAINER,
        "image": config.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": [
            _from_field("POD_NAME", "metadata.name"),
            _from_field("POD_NAMESPACE", "metadata.namespace"),
            _from_field("POD_IP", "status.podIP"),
            _from_field("NODE_NAME", "spec.nodeName"),
            _from_field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            _value("MESH_LABELS", json.dumps(dict(labels), sort_keys=True)),
            _value("MESH_WORKLOAD", workload),
            _value("MESH_APP_CONTAINERS", ",".join(apps)),
            _value("MESH_DISCOVERY_ADDRESS", config.discovery_address),
            _value("MESH_CA_FILE", config.ca_file),
            _value("MESH_TOKEN_FILE", config.token_file),
            _value("MESH_CONCURRENCY", str(config.concurrency)),
        ],
        "ports": [{"name": "mesh-metrics", "containerPort": 15020, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": config.cpu_request, "memory": config.memory_request}},
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 3},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


def _value(name: str, value: str) -> dict[str, Any]:
    # A "$(NAME)" in a label must stay what it is: the node agent expands references in values.
    return {"name": name, "value": value.replace("$(", "$$(")}


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
