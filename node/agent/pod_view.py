"""What the parts of a pod's worker share: the node's tools, the pod as it is known, and its events."""

from dataclasses import dataclass
from typing import Protocol

from mesh.api.meta import ObjectReference
from mesh.api.pod import Container, Pod
from mesh.client.events import EventRecorder
from mesh.client.rest import ApiClient
from mesh.clock import Clock
from node.agent.launcher import Launcher
from node.agent.plan import Settings
from node.agent.prober import Checker
from node.agent.state import ContainerFacts, PodState
from node.runtime.spawners import ContainerRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTools:
    """What all workers of a node share."""

    client: ApiClient
    launcher: Launcher
    runtime: ContainerRuntime
    checker: Checker
    recorder: EventRecorder
    settings: Settings
    host_ip: str
    clock: Clock


class PodView(Protocol):
    """A pod as its worker knows it now."""

    @property
    def pod(self) -> Pod: ...
    @property
    def state(self) -> PodState: ...


class ChangingPod(PodView, Protocol):
    """The same, for who finds out more."""

    def set_facts(self, name: str, facts: ContainerFacts) -> None: ...


class PodEvents:
    """Events about one pod and its containers."""

    def __init__(self, recorder: EventRecorder, view: PodView) -> None:
        self._recorder = recorder
        self._view = view

    def event(self, type_: str, reason: str, message: str, container: Container | None = None) -> None:
        """Record one; with `container`, about that part of the pod. Never blocks."""
        pod = self._view.pod
        meta, path = pod.metadata, ""
        if container is not None:
            is_init = container in pod.spec.init_containers
            path = f"spec.{'initContainers' if is_init else 'containers'}{{{container.name}}}"
        about = ObjectReference(
            api_version="v1", kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid, field_path=path
        )
        self._recorder.event(about, type_, reason, message)
