"""One pod's worker: keeps what is known, asks `plan` what to do, and does it. One task per pod.

Whatever happens (the object changes, a container ends, a probe decides, time passes) only changes the state and wakes the
loop; the loop alone acts. The state is saved after each change, so a new agent goes on from there.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import msgspec

from mesh.api.pod import Container, LifecycleHandler, Pod, Probe
from mesh.api.resources import PODS, Json
from mesh.backoff import Backoff
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.errors import MeshError
from mesh.net.container_process import kill_in_network_namespace
from mesh.net.errors import SpawnerGoneError, SpawnError
from mesh.net.spawn import Record
from mesh.net.tasks import cancel_and_wait, spawn
from node.agent.commands import ContainerCommands
from node.agent.plan import (
    Action,
    Finish,
    SetUp,
    Start,
    Stop,
    TearDown,
    plan,
)
from node.agent.pod_view import PodEvents, WorkerTools
from node.agent.prober import CheckResult, watch_container
from node.agent.probes import ProbeKind
from node.agent.reporter import StatusReporter
from node.agent.starter import ContainerStarter
from node.agent.state import (
    ContainerFacts,
    PodState,
    Termination,
    container_id,
    ended,
    ended_as,
    save_state,
    split_container_id,
    started,
)
from node.agent.stopper import ContainerStopper
from node.errors import ContainerConfigError, NotReadyError, VolumeError
from node.runtime.spawners import CommandResult

logger = logging.getLogger(__name__)

_RETRY = Backoff(base_s=0.5, cap_s=30.0, jitter=0.0)
_LOST_EXIT_CODE = 137


class PodWorker:
    """The worker of one pod. All methods are for the loop's thread."""

    def __init__(self, state: PodState, tools: WorkerTools) -> None:
        self._tools = tools
        self._state = state
        self._pod = Pod.of(state.pod)
        self._wake = asyncio.Event()
        self._early_exits: dict[str, Record] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._events = PodEvents(tools.recorder, self)
        self._reporter = StatusReporter(tools, self, self._events)
        self._commands = ContainerCommands(tools, self)
        self._starter = ContainerStarter(tools, self, self._events)
        self._stopper = ContainerStopper(tools, self, self._events, self._commands)
        self._is_finished = False
        self._failures = 0
        self._group: asyncio.TaskGroup | None = None
        if state.terminating_since is None and self._pod.metadata.is_terminating:
            self._change(msgspec.structs.replace(state, terminating_since=tools.clock.wall()))

    @property
    def pod(self) -> Pod:
        """The object as last seen."""
        return self._pod

    @property
    def state(self) -> PodState:
        """What is known now."""
        return self._state

    # What others tell the worker

    def update(self, pod: Json) -> None:
        """The object has changed."""
        kept = {**pod, "metadata": {k: v for k, v in pod["metadata"].items() if k != "managedFields"}}
        self._pod = Pod.of(kept)
        since = self._state.terminating_since
        if since is None and self._pod.metadata.is_terminating:
            since = self._tools.clock.wall()
        if self._pod.metadata.is_terminating and self._pod.metadata.deletion_grace_period_seconds == 0:
            self._stopper.hurry.set()
        self._reporter.seen()
        self._change(msgspec.structs.replace(self._state, pod=kept, terminating_since=since))

    def gone(self) -> None:
        """The object has left the API: end everything soon."""
        if self._state.is_gone:
            return
        since = self._state.terminating_since or self._tools.clock.wall()
        self._stopper.hurry.set()
        self._change(msgspec.structs.replace(self._state, is_gone=True, terminating_since=since))

    def images_changed(self) -> None:
        """HostImages are not what they were: try again what failed for want of one."""
        for name, facts in self._state.containers.items():
            if facts.trouble and facts.trouble.reason in ("ErrImagePull", "ImagePullBackOff"):
                trouble = msgspec.structs.replace(facts.trouble, retry_at=0.0)
                self.set_facts(name, msgspec.structs.replace(facts, trouble=trouble))

    def exited(self, record: Record) -> None:
        """A run has ended; also one whose start is still being recorded."""
        parts = split_container_id(record.id)
        if parts is None:
            return
        _, name, attempt = parts
        facts = self._state.facts(name)
        if facts.running is None or facts.attempt != attempt:
            if attempt > facts.attempt:
                self._early_exits[record.id] = record
            else:
                self._forget_record(record.id, facts.is_forked)
            return
        self.set_facts(name, ended(facts, record, restart_reset_s=self._tools.settings.restart_reset_s))
        self._forget_record(record.id, facts.is_forked)
        self._stopper.ended(record.id)

    def synced(self, is_forked: bool, records: Sequence[Record]) -> None:
        """A spawner was (re)connected and has these records of this pod: adopt, end or miss runs accordingly."""
        by_id = {record.id: record for record in records}
        for record in records:
            self._adopt(record, is_forked)
        for name, facts in self._state.containers.items():
            if facts.running is None or facts.is_forked != is_forked:
                continue
            id_ = container_id(self._pod.metadata.uid, name, facts.attempt)
            found = by_id.get(id_)
            if found is None:
                self._lost(name, facts)
            elif found.exit_status is not None:
                self.exited(found)

    def _adopt(self, record: Record, is_forked: bool) -> None:
        """Take over a run that the last agent started but did not record."""
        parts = split_container_id(record.id)
        if parts is None:
            return
        _, name, attempt = parts
        facts = self._state.facts(name)
        if attempt > facts.attempt:
            self.set_facts(name, started(facts, record, attempt, image=facts.image, is_forked=is_forked))
        elif attempt < facts.attempt or facts.running is None:
            self._forget_record(record.id, is_forked)

    def _lost(self, name: str, facts: ContainerFacts) -> None:
        """A run whose spawner has died; what it started itself may live on and is killed."""
        if facts.running is not None and facts.running.mount_namespace:
            kill_in_network_namespace(self._state.netns_path, facts.running.mount_namespace)
        now = self._tools.clock.wall()
        end = Termination(
            exit_code=_LOST_EXIT_CODE,
            reason="ContainerStatusUnknown",
            message="the container ended together with the node's spawner",
            started_at=facts.running.started_at if facts.running else now,
            finished_at=now,
            attempt=facts.attempt,
        )
        self.set_facts(name, ended_as(facts, end, restart_reset_s=self._tools.settings.restart_reset_s))
        self._stopper.ended(container_id(self._pod.metadata.uid, name, facts.attempt))

    def _forget_record(self, id_: str, is_forked: bool) -> None:
        if self._group is not None:
            spawn(self._group, self._forget(id_, is_forked), name=f"forget {id_}")

    async def _forget(self, id_: str, is_forked: bool) -> None:
        # An unforgotten record is met again at the next connection.
        with contextlib.suppress(SpawnError, SpawnerGoneError):
            await self._tools.runtime.forget(id_, is_forked=is_forked)

    def _change(self, state: PodState) -> None:
        if state != self._state:
            self._state = state
            self._save()
        self._wake.set()
        self._reporter.touch()

    def set_facts(self, name: str, facts: ContainerFacts) -> None:
        """Remember what is known of a container now, and look again what to do."""
        self._change(self._state.with_facts(name, facts))

    def _save(self) -> None:
        directory = self._tools.launcher.directory(self._pod.metadata.uid)
        try:
            directory.make()
            save_state(directory.state_file, self._state)
        except OSError as exc:
            logger.error("a pod's state was not saved", extra={"pod": self._pod.key, "error": str(exc)})

    # The loop

    async def run(self) -> None:
        """Work until the pod is finished and gone. Only cancellation ends it before."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._resume()
            helpers = [
                spawn(group, self._reporter.run(), name=f"status of {self._pod.key}"),
                spawn(group, self._refresh_loop(), name=f"volumes of {self._pod.key}"),
            ]
            while not self._is_finished:
                self._wake.clear()
                wait_s = await self._step()
                if not self._is_finished:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), wait_s)
            self._group = None
            for task in (*helpers, *self._probes.values()):
                await cancel_and_wait(task)

    def _resume(self) -> None:
        """Nothing of an earlier agent is under way any more: stops are ordered again."""
        for name, facts in self._state.containers.items():
            if facts.is_stopping:
                self.set_facts(name, msgspec.structs.replace(facts, is_stopping=False))

    async def _step(self) -> float | None:
        """Plan and act once; seconds until the next look, None for as long as nothing happens."""
        try:
            next_step = plan(self._pod, self._state, self._tools.clock.wall(), self._tools.settings)
            if next_step.final_phase:
                self._change(
                    msgspec.structs.replace(
                        self._state,
                        final_phase=next_step.final_phase,
                        final_reason=next_step.final_reason,
                        final_message=next_step.final_message,
                    )
                )
            for action in next_step.actions:
                await self._act(action)
            self._follow_probes()
            self._failures = 0
        except Exception as exc:
            # One pod's trouble is not the others': it is shown where a person looks, and tried again.
            self._failures += 1
            self._explain(exc)
            return _RETRY.ceiling_s(self._failures)
        if next_step.wake_at is None:
            return None
        self._reporter.touch()
        return max(0.0, next_step.wake_at - self._tools.clock.wall()) + 0.001

    def _explain(self, exc: Exception) -> None:
        if isinstance(exc, ApiError | SpawnerGoneError | NotReadyError):
            logger.info("pod step failed, trying again", extra={"pod": self._pod.key, "error": str(exc)})
        elif isinstance(exc, VolumeError | ContainerConfigError):
            self._events.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {exc}")
        elif isinstance(exc, MeshError):
            self._events.event("Warning", "FailedCreatePodSandBox", str(exc))
        else:
            logger.exception("pod step failed", extra={"pod": self._pod.key})
            self._events.event("Warning", "FailedSync", f"error syncing pod: {type(exc).__name__}: {exc}")

    async def _act(self, action: Action) -> None:
        match action:
            case SetUp():
                sandbox = await self._tools.launcher.set_up(self._pod)
                changed = msgspec.structs.replace(
                    self._state, has_sandbox=True, address=sandbox.address, netns_path=sandbox.netns_path
                )
                self._change(changed)
            case Start(name):
                await self._start(self._container(name))
            case Stop(name, grace_s, why):
                self.set_facts(name, msgspec.structs.replace(self._state.facts(name), is_stopping=True))
                assert self._group is not None
                spawn(
                    self._group,
                    self._stopper.stop(self._container(name), grace_s, why),
                    name=f"stop {self._pod.key} {name}",
                )
            case TearDown():
                await self._tools.launcher.tear_down(self._pod.metadata.uid, self._state.netns_path)
                self._change(msgspec.structs.replace(self._state, has_sandbox=False))
            case Finish():
                await self._finish()

    def _container(self, name: str) -> Container:
        return next(c for c in (*self._pod.spec.init_containers, *self._pod.spec.containers) if c.name == name)

    # Starting and stopping

    async def _start(self, container: Container) -> None:
        record = await self._starter.start(container)
        if record is None:
            return
        if (early := self._early_exits.pop(record.id, None)) is not None:
            self.exited(early)
        elif (hook := container.lifecycle.post_start) is not None and self._group is not None:
            work = self._post_start(container, hook, self._state.facts(container.name).attempt)
            spawn(self._group, work, name=f"postStart {self._pod.key} {container.name}")

    async def _post_start(self, container: Container, hook: LifecycleHandler, attempt: int) -> None:
        problem = await self._commands.run_hook(container, hook, self._state.facts(container.name), 30.0)
        facts = self._state.facts(container.name)
        if problem and facts.running is not None and facts.attempt == attempt and not facts.is_stopping:
            self._events.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}", container)
            await self._act(Stop(container.name, self._grace_s(None), "postStart hook failed"))

    # Probes

    def _follow_probes(self) -> None:
        """Have one probing task for each running container, and none for others."""
        wanted = {}
        for container in (*self._pod.spec.containers, *(c for c in self._pod.spec.init_containers if c.is_sidecar)):
            facts = self._state.facts(container.name)
            if facts.running is not None and not (facts.is_stopping and self._state.terminating_since is None):
                wanted[container_id(self._pod.metadata.uid, container.name, facts.attempt)] = container
        for id_ in [id_ for id_ in self._probes if id_ not in wanted]:
            self._probes.pop(id_).cancel()
            self._commands.forget(id_)
        for id_, container in wanted.items():
            if id_ not in self._probes and self._group is not None:
                work = self._probe(container, self._state.facts(container.name))
                self._probes[id_] = spawn(self._group, work, name=f"probes {self._pod.key} {container.name}")

    async def _probe(self, container: Container, facts: ContainerFacts) -> None:
        assert facts.running is not None
        run = _ProbedRun(self, container, facts)
        await watch_container(
            container,
            run.look,
            run,
            ran_s=self._tools.clock.wall() - facts.running.started_at,
            is_started=facts.is_started,
            is_ready=facts.is_ready,
        )

    async def look(self, container: Container, facts: ContainerFacts, probe: Probe) -> CheckResult:
        """Look once at a running container."""

        async def run(command: tuple[str, ...], timeout_s: float) -> CommandResult:
            return await self._commands.run(container, facts, command, timeout_s)

        return await self._tools.checker.check(probe, container, self._state.address, run)

    def probe_verdict(self, container: Container, attempt: int, kind: ProbeKind, is_success: bool) -> None:
        """A probe of run `attempt` has decided."""
        facts = self._state.facts(container.name)
        if facts.running is None or facts.attempt != attempt:
            return
        if kind is ProbeKind.READINESS:
            self.set_facts(container.name, msgspec.structs.replace(facts, is_ready=is_success))
        elif kind is ProbeKind.STARTUP and is_success:
            self.set_facts(container.name, msgspec.structs.replace(facts, is_started=True))
        elif not is_success and not facts.is_stopping and self._state.terminating_since is None:
            word = kind.value.lower()
            self._events.event(
                "Normal", "Killing", f"Container {container.name} failed {word} probe, will be restarted", container
            )
            probe = container.liveness_probe if kind is ProbeKind.LIVENESS else container.startup_probe
            self.set_facts(container.name, msgspec.structs.replace(facts, is_stopping=True, is_ready=False))
            if self._group is not None:
                work = self._stopper.stop(container, self._grace_s(probe), f"{word} probe failed")
                spawn(self._group, work, name=f"stop {self._pod.key} {container.name}")

    def probe_failed(self, container: Container, kind: ProbeKind, message: str) -> None:
        """One look has failed."""
        self._events.event("Warning", "Unhealthy", f"{kind.value} probe failed: {message}", container)

    def _grace_s(self, probe: Probe | None) -> float:
        own = probe.termination_grace_period_seconds if probe else None
        return float(self._pod.spec.termination_grace_period_seconds if own is None else own)

    # The end

    async def _finish(self) -> None:
        """The last status, then the deletion itself; then nothing of the pod is left on this node. Raises ApiError."""
        meta = self._pod.metadata
        if not self._state.is_gone:
            with contextlib.suppress(NotFoundError, ConflictError):
                await self._reporter.write()
                await self._tools.client.delete(PODS, meta.name, meta.namespace, grace_period_s=0, uid=meta.uid)
        self._tools.launcher.forget(meta.uid)
        self._is_finished = True

    async def _refresh_loop(self) -> None:
        """Keep volumes and the token fresh once the pod is set up."""
        # After a restart of the agent nobody knows how old the token is.
        wait_s = 1.0 if self._state.has_sandbox else 60.0
        while True:
            await asyncio.sleep(min(wait_s, 3600.0))
            if not self._state.has_sandbox:
                continue
            try:
                wait_s = await self._tools.launcher.refresh(self._pod, self._state.address)
            except MeshError as exc:
                logger.info("volumes not refreshed", extra={"pod": self._pod.key, "error": str(exc)})
                wait_s = 10.0


class _ProbedRun:
    """One run of a container as its probes see it."""

    def __init__(self, worker: PodWorker, container: Container, facts: ContainerFacts) -> None:
        self._worker = worker
        self._container = container
        self._facts = facts

    async def look(self, probe: Probe) -> CheckResult:
        return await self._worker.look(self._container, self._facts, probe)

    def verdict(self, kind: ProbeKind, is_success: bool, message: str) -> None:
        self._worker.probe_verdict(self._container, self._facts.attempt, kind, is_success)

    def failed(self, kind: ProbeKind, message: str) -> None:
        self._worker.probe_failed(self._container, kind, message)
