"""The status a node reports for a pod. Pure. Source: Kubernetes docs, "Pod Lifecycle"; kubelet's getPhase."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mesh.api.meta import Condition, condition_of
from mesh.api.pod import Container, Pod
from mesh.api.resources import Json
from node.agent.plan import Settings, is_initialized, restart_at, restart_delay_s, wants_restart
from node.agent.state import ContainerFacts, PodState, Termination, container_id


def rfc3339(wall_s: float) -> str:
    """Seconds since the epoch as the API writes times."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(
    pod: Pod, state: PodState, now: float, settings: Settings, *, host_ip: str, known: Sequence[Condition] = ()
) -> Json:
    """The whole status this node answers for, as a strategic merge patch of `status`.

    `known` are conditions written lately that the cached pod may not show yet: a condition keeps its time while its
    status stays the same.
    """
    phase = pod_phase(pod, state)
    initialized = is_initialized(pod, state)
    mains = [_container_status(pod, c, state, now, settings, False, initialized) for c in pod.spec.containers]
    inits = [_container_status(pod, c, state, now, settings, True, True) for c in pod.spec.init_containers]
    status: Json = {
        "phase": phase,
        "startTime": rfc3339(state.started_at),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "conditions": _conditions(pod, state, now, phase, initialized, (*known, *pod.status.conditions)),
        "containerStatuses": mains,
        "qosClass": qos_class(pod),
    }
    if inits:
        status["initContainerStatuses"] = inits
    if state.address:
        status |= {"podIP": state.address, "podIPs": [{"ip": state.address}]}
    if state.final_reason:
        status |= {"reason": state.final_reason, "message": state.final_message}
    return status


def pod_phase(pod: Pod, state: PodState) -> str:
    """Pending, Running, Succeeded or Failed."""
    if state.final_phase:
        return state.final_phase
    mains = [state.facts(container.name) for container in pod.spec.containers]
    if not is_initialized(pod, state) or any(facts.attempt == 0 for facts in mains):
        return "Pending"
    if state.terminating_since is not None and all(facts.has_ended for facts in mains):
        return "Failed" if any(facts.last and facts.last.exit_code for facts in mains) else "Succeeded"
    return "Running"


def containers_ready(pod: Pod, state: PodState) -> tuple[str, ...]:
    """Names of the containers (sidecars included) that are not ready."""
    watched = [*pod.spec.containers, *(c for c in pod.spec.init_containers if c.is_sidecar)]
    return tuple(c.name for c in watched if not _is_ready(c, state.facts(c.name)))


def _is_ready(container: Container, facts: ContainerFacts) -> bool:
    return facts.running is not None and facts.is_started and (facts.is_ready or container.readiness_probe is None)


def _conditions(
    pod: Pod, state: PodState, now: float, phase: str, initialized: bool, known: tuple[Condition, ...]
) -> list[Json]:
    unready = containers_ready(pod, state)
    finished = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    ready_reason = finished or ("ContainersNotReady" if unready else "")
    message = f"containers with unready status: [{' '.join(unready)}]" if unready and not finished else ""
    are_ready = not unready and not finished
    gates = [gate.condition_type for gate in pod.spec.readiness_gates]
    closed = [gate for gate in gates if not ((c := condition_of(pod.status.conditions, gate)) and c.is_true)]
    if are_ready and closed:
        ready_reason, message = "ReadinessGatesNotReady", f"the status of pod readiness gates {closed} is not True"
    wanted = [
        ("PodReadyToStartContainers", state.has_sandbox, "", ""),
        ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", _init_message(pod, state)),
        ("Ready", are_ready and not closed, ready_reason, message),
        ("ContainersReady", are_ready, finished or ("ContainersNotReady" if unready else ""), message),
        ("PodScheduled", True, "", ""),
    ]
    return [_condition(known, now, *one) for one in wanted]


def _init_message(pod: Pod, state: PodState) -> str:
    if is_initialized(pod, state):
        return ""
    open_ = [c.name for c in pod.spec.init_containers if not _init_done(c, state.facts(c.name))]
    return f"containers with incomplete status: [{' '.join(open_)}]"


def _init_done(container: Container, facts: ContainerFacts) -> bool:
    if container.is_sidecar:
        return facts.running is not None and facts.is_started
    return facts.last is not None and facts.last.exit_code == 0


def _condition(known: tuple[Condition, ...], now: float, type_: str, holds: bool, reason: str, message: str) -> Json:
    """One condition; its transition time stays while its status does."""
    status = "True" if holds else "False"
    old = condition_of(known, type_)
    same = old is not None and old.status == status and old.last_transition_time
    changed_at = old.last_transition_time if old is not None and same else rfc3339(now)
    # An explicit null takes an old reason away in a merge patch.
    return {
        "type": type_,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": changed_at,
        "reason": reason or None,
        "message": message or None,
    }


def _container_status(
    pod: Pod, container: Container, state: PodState, now: float, settings: Settings, is_init: bool, initialized: bool
) -> Json:
    facts = state.facts(container.name)
    ready = _is_ready(container, facts)
    if is_init and not container.is_sidecar:
        ready = facts.has_ended and facts.last is not None and facts.last.exit_code == 0
    uid = pod.metadata.uid
    status: Json = {
        "name": container.name,
        "image": container.image,
        "imageID": f"hostimage://{facts.image}" if facts.image else "",
        "restartCount": facts.restart_count,
        "ready": ready,
        "started": facts.running is not None and facts.is_started,
        "state": _state(pod, container, state, facts, now, settings, is_init=is_init, initialized=initialized),
        "lastState": {},
    }
    shown = facts.previous
    if facts.last is not None and "terminated" not in status["state"]:
        shown = facts.last
    if shown is not None:
        status["lastState"] = {"terminated": _terminated(uid, container.name, shown)}
    if facts.attempt:
        status["containerID"] = f"meshwork://{container_id(uid, container.name, facts.attempt)}"
    return status


def _state(
    pod: Pod,
    container: Container,
    state: PodState,
    facts: ContainerFacts,
    now: float,
    settings: Settings,
    *,
    is_init: bool,
    initialized: bool,
) -> Json:
    if facts.running is not None:
        return {"running": {"startedAt": rfc3339(facts.running.started_at)}}
    ends = state.terminating_since is not None or bool(state.final_phase)
    if facts.trouble is not None and not ends:
        return _waiting(facts.trouble.reason, facts.trouble.message)
    if facts.last is None:
        if state.has_sandbox and initialized:
            return _waiting("ContainerCreating")
        return _waiting("PodInitializing" if pod.spec.init_containers else "ContainerCreating")
    waits = not ends and wants_restart(pod, container, facts.last.exit_code, is_init=is_init)
    if waits and now < restart_at(facts, settings):
        wait_s = restart_delay_s(facts.crashes, settings)
        where = f"container={container.name} pod={pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"
        return _waiting("CrashLoopBackOff", f"back-off {wait_s:g}s restarting failed {where}")
    return {"terminated": _terminated(pod.metadata.uid, container.name, facts.last)}


def _waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _terminated(uid: str, name: str, end: Termination) -> Json:
    fields: Json = {
        "exitCode": end.exit_code,
        "reason": end.reason,
        "startedAt": rfc3339(end.started_at),
        "finishedAt": rfc3339(end.finished_at),
        "containerID": f"meshwork://{container_id(uid, name, end.attempt)}",
    }
    if end.signal:
        fields["signal"] = end.signal
    if end.message:
        fields["message"] = end.message
    return fields


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers: Sequence[Container] = (*pod.spec.containers, *pod.spec.init_containers)
    if not any(c.resources.requests or c.resources.limits for c in containers):
        return "BestEffort"
    for container in containers:
        limits, requests = container.resources.limits, container.resources.requests
        if not all(limits.get(name) and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"
