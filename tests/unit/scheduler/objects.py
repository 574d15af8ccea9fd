"""Small pods and nodes."""

from typing import Any

from controlplane.scheduler.pods import PodFacts, facts_of
from controlplane.scheduler.state import ClusterState
from mesh.api.core import Node, Pod, Service
from mesh.api.resources import Json


def make_node(
    name: str,
    *,
    labels: Json | None = None,
    ready: str = "True",
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    **spec: Any,
) -> Node:
    amounts = {"cpu": cpu, "memory": memory, "pods": pods}
    return Node.of(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": spec,
            "status": {"allocatable": amounts, "conditions": [{"type": "Ready", "status": ready}]},
        }
    )


def make_pod(
    name: str = "web", *, requests: Json | None = None, labels: Json | None = None, owner: str = "", **spec: Any
) -> Pod:
    owners = [{"uid": owner, "controller": True}] if owner else []
    metadata = {"name": name, "namespace": "d", "uid": name, "labels": labels or {}, "ownerReferences": owners}
    container = {"name": "a", "resources": {"requests": requests or {}}}
    return Pod.of({"metadata": metadata, "spec": {"containers": [container], **spec}})


def make_facts(name: str = "web", **more: Any) -> PodFacts:
    return facts_of(make_pod(name, **more))


def make_state(*nodes: Node) -> ClusterState:
    state = ClusterState()
    for node in nodes:
        state.put_node(node)
    return state


def make_service(name: str, selector: Json) -> Service:
    return Service.of({"metadata": {"name": name, "namespace": "d"}, "spec": {"selector": selector}})
