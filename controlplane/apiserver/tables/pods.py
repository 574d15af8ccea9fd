"""The columns of pods, whose Status is a summary of containers, init containers and the pod itself.

Source: what kubectl's users know from Kubernetes ("Debug Pods", "Init Containers", "Sidecar Containers").
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.apiserver.tables.columns import AGE, NAME, NONE, Cell, Column, at, field, seconds_of, since, wide
from mesh.api.resources import Json


@dataclass(slots=True)
class _Summary:
    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""
    is_initializing: bool = False


def _summary(pod: Json) -> _Summary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    summary = _Summary(status.get("reason") or status.get("phase") or "Unknown")
    summary.total = len(spec.get("containers") or ())
    _of_init_containers(summary, spec, status)
    if not summary.is_initializing or _is_initialized(status):
        _of_containers(summary, status)
    if pod["metadata"].get("deletionTimestamp"):
        summary.reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return summary


def _is_initialized(status: Json) -> bool:
    conditions = status.get("conditions") or ()
    return any(c.get("type") == "Initialized" and c.get("status") == "True" for c in conditions)


def _of_init_containers(summary: _Summary, spec: Json, status: Json) -> None:
    containers = spec.get("initContainers") or ()
    sidecars = {c.get("name") for c in containers if c.get("restartPolicy") == "Always"}
    summary.total += len(sidecars)
    for index, one in enumerate(status.get("initContainerStatuses") or ()):
        is_sidecar = one.get("name") in sidecars
        _count_restarts(summary, one)
        if is_sidecar and one.get("ready"):
            summary.ready += 1
        if summary.is_initializing or _is_through(one, is_sidecar):
            continue
        summary.is_initializing = True
        reason = _bad_reason(one.get("state") or {})
        summary.reason = f"Init:{reason}" if reason else f"Init:{index}/{len(containers)}"


def _is_through(status: Json, is_sidecar: bool) -> bool:
    terminated = at(status, "state", "terminated")
    if terminated is not None and terminated.get("exitCode") == 0:
        return True
    return is_sidecar and bool(status.get("started"))


def _of_containers(summary: _Summary, status: Json) -> None:
    statuses = status.get("containerStatuses") or ()
    has_running = False
    for one in reversed(statuses):
        _count_restarts(summary, one)
        state = one.get("state") or {}
        summary.reason = _bad_reason(state) or _ended_reason(state) or summary.reason
        if state.get("running") is not None and one.get("ready"):
            has_running = True
            summary.ready += 1
    if summary.reason == "Completed" and has_running:
        summary.reason = "Running" if _has_condition(status, "Ready") else "NotReady"


def _has_condition(status: Json, type_: str) -> bool:
    return any(c.get("type") == type_ and c.get("status") == "True" for c in status.get("conditions") or ())


def _bad_reason(state: Json) -> str:
    """Why a container waits or has failed; "" when it does neither."""
    waiting = at(state, "waiting", "reason")
    if waiting and waiting != "PodInitializing":
        return str(waiting)
    terminated = state.get("terminated")
    if terminated is None or terminated.get("exitCode") == 0:
        return ""
    if terminated.get("reason"):
        return str(terminated["reason"])
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', 0)}"


def _ended_reason(state: Json) -> str:
    terminated = state.get("terminated")
    return "" if terminated is None else str(terminated.get("reason") or "Completed")


def _count_restarts(summary: _Summary, status: Json) -> None:
    summary.restarts += int(status.get("restartCount") or 0)
    ended = at(status, "lastState", "terminated", "finishedAt") or ""
    if (seconds_of(ended) or 0) > (seconds_of(summary.last_restart) or 0):
        summary.last_restart = ended


def _ready(pod: Json, _now_s: float) -> Cell:
    summary = _summary(pod)
    return f"{summary.ready}/{summary.total}"


def _status(pod: Json, _now_s: float) -> Cell:
    return _summary(pod).reason


def _restarts(pod: Json, now_s: float) -> Cell:
    summary = _summary(pod)
    if not summary.restarts or not summary.last_restart:
        return str(summary.restarts)
    return f"{summary.restarts} ({since(summary.last_restart, now_s)} ago)"


def _gates(pod: Json, _now_s: float) -> Cell:
    gates: Iterable[Json] = at(pod, "spec", "readinessGates") or ()
    wanted = [gate.get("conditionType", "") for gate in gates]
    if not wanted:
        return NONE
    met = sum(_has_condition(pod.get("status") or {}, type_) for type_ in wanted)
    return f"{met}/{len(wanted)}"


PODS_COLUMNS = (
    NAME,
    Column("Ready", _ready, description="Ready containers of all containers."),
    Column("Status", _status, description="The pod's phase, or what keeps it from running."),
    Column("Restarts", _restarts, description="Restarts of all containers and the time of the last one."),
    AGE,
    wide("IP", field("status", "podIP")),
    wide("Node", field("spec", "nodeName")),
    wide("Nominated Node", field("status", "nominatedNodeName")),
    wide("Readiness Gates", _gates),
)
