"""What to do next about one pod: a pure function from what is wanted and what is known to actions.

Sources: Kubernetes docs, "Pod Lifecycle", "Init Containers", "Sidecar Containers"; docs/contracts.md, "Acknowledged drain".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.api.meta import condition_of
from mesh.api.pod import Container, Pod
from node.agent.state import ContainerFacts, PodState

DRAINED = "meshwork.dev/Drained"
MINIMUM_GRACE_S = 2.0
"""What a container gets at least between SIGTERM and SIGKILL. Source: kubelet minimumGracePeriodInSeconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The node's settings that decisions depend on; see NodeConfig for units and sources."""

    restart_base_s: float = 10.0
    restart_cap_s: float = 300.0
    restart_reset_s: float = 600.0
    drain_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class SetUp:
    """Make the pod's network and volumes."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the next attempt of a container."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """preStop, SIGTERM, and SIGKILL after `grace_s` seconds; its exit comes later."""

    name: str
    grace_s: float
    why: str


@dataclass(frozen=True, slots=True)
class TearDown:
    """Take the pod's network and volumes away; every container has ended."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the last status, delete the object with grace 0, forget the pod."""


Action = SetUp | Start | Stop | TearDown | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, and when to look again if nothing happens."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    """Seconds since the epoch."""
    final_phase: str = ""
    """Succeeded or Failed when this is now certain."""
    final_reason: str = ""
    final_message: str = ""


def plan(pod: Pod, state: PodState, now: float, settings: Settings) -> Plan:
    """The next actions for `pod`, of which `state` is known. `now` is seconds since the epoch.

    Starts and set-up come before anything that depends on them, so a plan never holds a step whose turn has not come.
    """
    if state.terminating_since is not None:
        return _end(pod, state, now, settings)
    if state.final_phase:
        return _wind_down(pod, state, now)
    if (verdict := _verdict(pod, state, now)) is not None:
        return verdict
    if not state.has_sandbox:
        return Plan(actions=(SetUp(),))
    return _advance(pod, state, now, settings)


def is_initialized(pod: Pod, state: PodState) -> bool:
    """Every init container has done its part: ended with 0, or, as a sidecar, started. Sticky once a main one ran."""
    if any(state.facts(container.name).attempt for container in pod.spec.containers):
        return True
    return all(_init_is_done(container, state.facts(container.name)) for container in pod.spec.init_containers)


def _init_is_done(container: Container, facts: ContainerFacts) -> bool:
    if container.is_sidecar:
        return facts.running is not None and facts.is_started
    return facts.last is not None and facts.running is None and facts.last.exit_code == 0


def wants_restart(pod: Pod, container: Container, exit_code: int, *, is_init: bool) -> bool:
    """A container that ended with `exit_code` is to run again."""
    if container.is_sidecar:
        return True
    policy = pod.spec.restart_policy
    if is_init:
        return exit_code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def restart_at(facts: ContainerFacts, settings: Settings) -> float:
    """When a container that ended may start again: at once the first time, then after a doubling wait."""
    if facts.last is None:
        return 0.0
    return facts.last.finished_at + restart_delay_s(facts.crashes, settings)


def restart_delay_s(crashes: int, settings: Settings) -> float:
    """The wait after `crashes` ends in a row. Seconds."""
    if crashes <= 1:
        return 0.0
    doublings: int = min(crashes - 2, 32)
    return min(settings.restart_cap_s, settings.restart_base_s * float(2**doublings))


def _verdict(pod: Pod, state: PodState, now: float) -> Plan | None:
    """The final phase, when it has just become certain."""
    deadline = pod.spec.active_deadline_seconds
    if deadline is not None and now >= state.started_at + deadline:
        message = "Pod was active on the node longer than the specified deadline"
        return Plan(final_phase="Failed", final_reason="DeadlineExceeded", final_message=message)
    for container in pod.spec.init_containers:
        last = state.facts(container.name).last
        failed = last and last.exit_code != 0 and not wants_restart(pod, container, last.exit_code, is_init=True)
        if failed and not is_initialized(pod, state):
            return Plan(final_phase="Failed")
    ends = [state.facts(container.name) for container in pod.spec.containers]
    if not ends or not all(facts.has_ended for facts in ends):
        return None
    codes = [facts.last.exit_code for facts in ends if facts.last]
    for container, code in zip(pod.spec.containers, codes, strict=True):
        if wants_restart(pod, container, code, is_init=False):
            return None
    return Plan(final_phase="Failed" if any(codes) else "Succeeded")


def _wind_down(pod: Pod, state: PodState, now: float) -> Plan:
    """The pod has finished: end what still runs (sidecars last), then give back the network."""
    if (stops := tuple(_stops(pod, state, float(pod.spec.termination_grace_period_seconds), "pod finished"))) or (
        _anything_runs(state)
    ):
        return Plan(actions=stops)
    return Plan(actions=(TearDown(),)) if state.has_sandbox else Plan()


def _end(pod: Pod, state: PodState, now: float, settings: Settings) -> Plan:
    """The pod is to go: drain, stop the apps, stop the sidecars, clean up, delete."""
    since = state.terminating_since or now
    grace_s = _grace_s(pod, state)
    if _anything_runs(state):
        drained_at = since + settings.drain_timeout_s
        if _waits_for_drain(pod, state) and now < drained_at:
            return Plan(wake_at=drained_at)
        left_s = max(MINIMUM_GRACE_S, since + settings.drain_timeout_s + grace_s - now) if grace_s else 0.0
        return Plan(actions=tuple(_stops(pod, state, min(grace_s, left_s), "pod deleted")))
    return Plan(actions=(TearDown(), Finish()))


def _grace_s(pod: Pod, state: PodState) -> float:
    if state.is_gone:
        return MINIMUM_GRACE_S
    asked = pod.metadata.deletion_grace_period_seconds
    return float(pod.spec.termination_grace_period_seconds if asked is None else asked)


def _waits_for_drain(pod: Pod, state: PodState) -> bool:
    if state.is_gone or pod.metadata.namespace.startswith("kube-") or state.final_phase:
        return False
    if pod.metadata.deletion_grace_period_seconds == 0:
        return False
    if not any(state.facts(container.name).running for container in pod.spec.containers):
        return False
    drained = condition_of(pod.status.conditions, DRAINED)
    return drained is None or not drained.is_true


def _anything_runs(state: PodState) -> bool:
    return any(facts.running for facts in state.containers.values())


def _stops(pod: Pod, state: PodState, grace_s: float, why: str) -> Iterator[Stop]:
    """Apps and plain init containers together; when they have ended, sidecars one by one, the last started first."""
    sidecars = [container.name for container in pod.spec.init_containers if container.is_sidecar]
    others = [name for name, facts in state.containers.items() if facts.running and name not in sidecars]
    if others:
        names = others
    else:
        running = [name for name in reversed(sidecars) if state.facts(name).running]
        names = running[:1]
    for name in names:
        if not state.facts(name).is_stopping:
            yield Stop(name, grace_s, why)


class _Steps:
    """Collects actions and the earliest time to look again."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.wake_at: float | None = None

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def start(self, pod: Pod, container: Container, state: PodState, now: float, settings: Settings) -> None:
        """Start `container` if it is due; otherwise note when it will be."""
        facts = state.facts(container.name)
        due = restart_at(facts, settings)
        if facts.trouble is not None:
            due = max(due, facts.trouble.retry_at)
        if now >= due:
            self.actions.append(Start(container.name))
        else:
            self.wake(due)


def _advance(pod: Pod, state: PodState, now: float, settings: Settings) -> Plan:
    steps = _Steps()
    initialized = is_initialized(pod, state)
    for container in pod.spec.init_containers:
        facts = state.facts(container.name)
        if container.is_sidecar:
            if facts.running is None:
                steps.start(pod, container, state, now, settings)
        elif not initialized and facts.running is None and not _init_is_done(container, facts):
            steps.start(pod, container, state, now, settings)
        if not initialized and not _init_is_done(container, facts):
            break
    if initialized:
        for container in pod.spec.containers:
            facts = state.facts(container.name)
            if facts.running is not None:
                continue
            if facts.last and not wants_restart(pod, container, facts.last.exit_code, is_init=False):
                continue
            steps.start(pod, container, state, now, settings)
    if pod.spec.active_deadline_seconds is not None:
        steps.wake(state.started_at + pod.spec.active_deadline_seconds)
    return Plan(actions=tuple(steps.actions), wake_at=steps.wake_at)
