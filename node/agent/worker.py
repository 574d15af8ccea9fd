"""One pod's worker: keeps what is known, asks `plan` what to do, and does it. One task per pod.

Whatever happens (the object changes, a container ends, a probe decides, time passes) only changes the state and wakes the
loop; the loop alone acts. The state is saved after each change, so a new agent goes on from there.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from mesh.api.meta import Condition, ObjectReference
from mesh.api.pod import Container, LifecycleHandler, Pod, Probe
from mesh.api.resources import PODS, Json
from mesh.backoff import Backoff
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.client.events import EventRecorder
from mesh.client.rest import ApiClient, PatchType
from mesh.clock import Clock
from mesh.errors import MeshError
from mesh.net.container_process import kill_in_network_namespace
from mesh.net.errors import SpawnerGoneError, SpawnError
from mesh.net.spawn import Record
from mesh.net.tasks import cancel_and_wait, spawn
from node.agent.launcher import Launcher, capability_names
from node.agent.plan import (
    MINIMUM_GRACE_S,
    Action,
    Finish,
    Settings,
    SetUp,
    Start,
    Stop,
    TearDown,
    plan,
    restart_at,
    wants_restart,
)
from node.agent.prober import Checker, CheckResult, watch_container
from node.agent.probes import ProbeKind
from node.agent.state import (
    ContainerFacts,
    PodState,
    Termination,
    Trouble,
    container_id,
    ended,
    ended_as,
    save_state,
    split_container_id,
    started,
)
from node.agent.status import pod_status
from node.errors import ContainerConfigError, ImageError, NotReadyError, VolumeError
from node.runtime.spawners import CommandResult, ContainerRuntime

logger = logging.getLogger(__name__)

_RETRY = Backoff(base_s=0.5, cap_s=30.0, jitter=0.0)
_IMAGE_RETRY = Backoff(base_s=2.0, cap_s=300.0, jitter=0.0)
_CONFIG_RETRY = Backoff(base_s=1.0, cap_s=60.0, jitter=0.0)
_START_FAILED = 128
_LOST_EXIT_CODE = 137


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


class PodWorker:
    """The worker of one pod. All methods are for the loop's thread."""

    def __init__(self, state: PodState, tools: WorkerTools) -> None:
        self._tools = tools
        self._state = state
        self._pod = Pod.of(state.pod)
        self._wake = asyncio.Event()
        self._report = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exits: dict[str, asyncio.Event] = {}
        self._early_exits: dict[str, Record] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._environments: dict[str, dict[str, str]] = {}
        self._known_conditions: tuple[Condition, ...] = ()
        self._reported: Json | None = None
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
            self._hurry.set()
        if self._is_overruled():
            self._reported, self._known_conditions = None, ()
        self._change(msgspec.structs.replace(self._state, pod=kept, terminating_since=since))

    def _is_overruled(self) -> bool:
        """Somebody called the pod not ready while this node was silent (docs/contracts.md, "Silent nodes"): say again what is so."""
        reported = (self._reported or {}).get("conditions", ())
        said_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in reported)
        return said_ready and not self._pod.is_ready

    def gone(self) -> None:
        """The object has left the API: end everything soon."""
        if self._state.is_gone:
            return
        since = self._state.terminating_since or self._tools.clock.wall()
        self._hurry.set()
        self._change(msgspec.structs.replace(self._state, is_gone=True, terminating_since=since))

    def images_changed(self) -> None:
        """HostImages are not what they were: try again what failed for want of one."""
        for name, facts in self._state.containers.items():
            if facts.trouble and facts.trouble.reason in ("ErrImagePull", "ImagePullBackOff"):
                trouble = msgspec.structs.replace(facts.trouble, retry_at=0.0)
                self._set(name, msgspec.structs.replace(facts, trouble=trouble))

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
        self._set(name, ended(facts, record, restart_reset_s=self._tools.settings.restart_reset_s))
        self._forget_record(record.id, facts.is_forked)
        self._exits.setdefault(record.id, asyncio.Event()).set()

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
            self._set(name, started(facts, record, attempt, image=facts.image, is_forked=is_forked))
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
        self._set(name, ended_as(facts, end, restart_reset_s=self._tools.settings.restart_reset_s))
        self._exits.setdefault(container_id(self._pod.metadata.uid, name, facts.attempt), asyncio.Event()).set()

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
        self._report.set()

    def _set(self, name: str, facts: ContainerFacts) -> None:
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
                spawn(group, self._report_loop(), name=f"status of {self._pod.key}"),
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
                self._set(name, msgspec.structs.replace(facts, is_stopping=False))

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
        self._report.set()
        return max(0.0, next_step.wake_at - self._tools.clock.wall()) + 0.001

    def _explain(self, exc: Exception) -> None:
        if isinstance(exc, ApiError | SpawnerGoneError | NotReadyError):
            logger.info("pod step failed, trying again", extra={"pod": self._pod.key, "error": str(exc)})
        elif isinstance(exc, VolumeError | ContainerConfigError):
            self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {exc}")
        elif isinstance(exc, MeshError):
            self._event("Warning", "FailedCreatePodSandBox", str(exc))
        else:
            logger.exception("pod step failed", extra={"pod": self._pod.key})
            self._event("Warning", "FailedSync", f"error syncing pod: {type(exc).__name__}: {exc}")

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
                self._set(name, msgspec.structs.replace(self._state.facts(name), is_stopping=True))
                assert self._group is not None
                spawn(self._group, self._stop(name, grace_s, why), name=f"stop {self._pod.key} {name}")
            case TearDown():
                await self._tools.launcher.tear_down(self._pod.metadata.uid, self._state.netns_path)
                self._change(msgspec.structs.replace(self._state, has_sandbox=False))
            case Finish():
                await self._finish()

    def _container(self, name: str) -> Container:
        return next(c for c in (*self._pod.spec.init_containers, *self._pod.spec.containers) if c.name == name)

    # Starting

    async def _start(self, container: Container) -> None:
        facts = self._state.facts(container.name)
        attempt = facts.attempt + 1
        try:
            image = self._tools.launcher.image(container)
            begun = await self._tools.launcher.start(self._pod, container, self._state, image, attempt)
        except ImageError as exc:
            self._image_trouble(container, exc)
            return
        except (ContainerConfigError, VolumeError) as exc:
            self._config_trouble(container, str(exc))
            return
        except SpawnerGoneError:
            raise
        except SpawnError as exc:
            self._start_failed(container, attempt, str(exc))
            return
        self._set(container.name, started(facts, begun.record, attempt, image=begun.image, is_forked=begun.is_forked))
        about = f'Container image "{container.image}" already present on machine'
        self._event("Normal", "Pulled", about, container)
        self._event("Normal", "Created", f"Created container: {container.name}", container)
        self._event("Normal", "Started", f"Started container {container.name}", container)
        if (early := self._early_exits.pop(begun.record.id, None)) is not None:
            self.exited(early)
        elif container.lifecycle.post_start is not None and self._group is not None:
            work = self._post_start(container, container.lifecycle.post_start, attempt)
            spawn(self._group, work, name=f"postStart {self._pod.key} {container.name}")

    def _image_trouble(self, container: Container, exc: ImageError) -> None:
        facts = self._state.facts(container.name)
        tries = facts.trouble.tries + 1 if facts.trouble else 1
        if tries == 1:
            self._event("Warning", "Failed", f"Failed to pull image: {exc}", container)
            self._event("Warning", "Failed", "Error: ErrImagePull", container)
        else:
            self._event("Normal", "BackOff", f'Back-off pulling image "{container.image}"', container)
            self._event("Warning", "Failed", "Error: ImagePullBackOff", container)
        reason = "ErrImagePull" if tries == 1 else "ImagePullBackOff"
        text = str(exc) if tries == 1 else f'Back-off pulling image "{container.image}": {exc}'
        self._trouble(container, Trouble(reason=reason, message=text, tries=tries), _IMAGE_RETRY)

    def _config_trouble(self, container: Container, message: str) -> None:
        facts = self._state.facts(container.name)
        tries = facts.trouble.tries + 1 if facts.trouble else 1
        self._event("Warning", "Failed", f"Error: {message}", container)
        trouble = Trouble(reason="CreateContainerConfigError", message=message, tries=tries)
        self._trouble(container, trouble, _CONFIG_RETRY)

    def _trouble(self, container: Container, trouble: Trouble, retry: Backoff) -> None:
        at = self._tools.clock.wall() + retry.ceiling_s(trouble.tries)
        facts = self._state.facts(container.name)
        trouble = msgspec.structs.replace(trouble, retry_at=at)
        self._set(container.name, msgspec.structs.replace(facts, trouble=trouble))

    def _start_failed(self, container: Container, attempt: int, message: str) -> None:
        """The program could not be executed: a run that ended at once, as container runtimes see it."""
        now = self._tools.clock.wall()
        facts = self._state.facts(container.name)
        begun = msgspec.structs.replace(facts, attempt=attempt, previous=facts.last or facts.previous, trouble=None)
        end = Termination(
            exit_code=_START_FAILED,
            reason="StartError",
            message=message,
            started_at=now,
            finished_at=now,
            attempt=attempt,
        )
        self._event("Warning", "Failed", f"Error: failed to start container {container.name!r}: {message}", container)
        self._set(container.name, ended_as(begun, end, restart_reset_s=self._tools.settings.restart_reset_s))

    # Stopping

    async def _stop(self, name: str, grace_s: float, why: str) -> None:
        facts = self._state.facts(name)
        if facts.running is None:
            return
        container = self._container(name)
        id_ = container_id(self._pod.metadata.uid, name, facts.attempt)
        ended_event = self._exits.setdefault(id_, asyncio.Event())
        self._event(
            "Normal", "Killing", f"Stopping container {name}" + (f": {why}" if "probe" in why else ""), container
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        try:
            if grace_s and container.lifecycle.pre_stop is not None:
                await self._pre_stop(container, container.lifecycle.pre_stop, facts, grace_s)
            if grace_s:
                await self._tools.runtime.signal(id_, signal.SIGTERM, is_forked=facts.is_forked)
                await self._wait_exit(ended_event, max(MINIMUM_GRACE_S, deadline - loop.time()))
            if not ended_event.is_set():
                await self._tools.runtime.signal(id_, signal.SIGKILL, is_forked=facts.is_forked)
                await ended_event.wait()
        except SpawnerGoneError as exc:
            logger.info("a stop waits for its spawner", extra={"pod": self._pod.key, "error": str(exc)})
            await asyncio.sleep(_RETRY.base_s)
            current = self._state.facts(name)
            if current.running is not None and current.attempt == facts.attempt:
                self._set(name, msgspec.structs.replace(current, is_stopping=False))
        finally:
            if ended_event.is_set():
                self._exits.pop(id_, None)

    async def _wait_exit(self, ended_event: asyncio.Event, timeout_s: float) -> None:
        """Wait for the end, at most `timeout_s`, and not longer than the minimum once the pod must go now."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline) as limit, asyncio.TaskGroup() as group:
                shorten = spawn(group, self._shorten(limit), name="hurry")
                await ended_event.wait()
                shorten.cancel()

    async def _shorten(self, limit: asyncio.Timeout) -> None:
        await self._hurry.wait()
        when = asyncio.get_running_loop().time() + MINIMUM_GRACE_S
        if (current := limit.when()) is not None and current > when:
            limit.reschedule(when)

    async def _pre_stop(
        self, container: Container, hook: LifecycleHandler, facts: ContainerFacts, grace_s: float
    ) -> None:
        try:
            async with asyncio.timeout(grace_s):
                problem = await self._run_hook(container, hook, facts, grace_s)
        except TimeoutError:
            problem = f"not finished within {grace_s:g} s"
        if problem:
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}", container)

    async def _post_start(self, container: Container, hook: LifecycleHandler, attempt: int) -> None:
        problem = await self._run_hook(container, hook, self._state.facts(container.name), 30.0)
        facts = self._state.facts(container.name)
        if problem and facts.running is not None and facts.attempt == attempt and not facts.is_stopping:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}", container)
            await self._act(Stop(container.name, self._grace_s(None), "postStart hook failed"))

    async def _run_hook(
        self, container: Container, hook: LifecycleHandler, facts: ContainerFacts, timeout_s: float
    ) -> str:
        """Run a lifecycle hook; "" or what went wrong."""
        try:
            if hook.sleep is not None:
                await asyncio.sleep(hook.sleep.seconds)
            elif hook.exec is not None:
                result = await self._command(container, facts, hook.exec.command, timeout_s)
                if result.exit_code:
                    return f"exit code {result.exit_code}: {result.output.decode(errors='replace').strip()}"
            elif hook.http_get is not None:
                async with asyncio.timeout(timeout_s):
                    answer = await self._tools.checker.http(hook.http_get, container, self._state.address)
                return "" if answer.is_success else answer.message
        except TimeoutError:
            return f"not finished within {timeout_s:g} s"
        except (MeshError, OSError) as exc:
            return str(exc)
        return ""

    async def _command(
        self, container: Container, facts: ContainerFacts, command: tuple[str, ...], timeout_s: float
    ) -> CommandResult:
        """Run a command in the container's namespaces with its environment. Raises MeshError."""
        if facts.running is None:
            raise SpawnError(f'container "{container.name}" is not running')
        return await self._tools.runtime.execute(
            facts.running,
            self._state.netns_path,
            command,
            env=await self._environment(container, facts.running.id),
            capabilities=capability_names(container, is_sidecar=facts.is_forked),
            timeout_s=timeout_s,
        )

    async def _environment(self, container: Container, id_: str) -> dict[str, str]:
        """The environment of a run, made once: a probe every second must not ask the API every second."""
        if id_ not in self._environments:
            image = self._tools.launcher.image(container)
            env = await self._tools.launcher.environment(self._pod, container, self._state, image)
            self._environments[id_] = env
        return self._environments[id_]

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
            self._environments.pop(id_, None)
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
            return await self._command(container, facts, command, timeout_s)

        return await self._tools.checker.check(probe, container, self._state.address, run)

    def probe_verdict(self, container: Container, attempt: int, kind: ProbeKind, is_success: bool) -> None:
        """A probe of run `attempt` has decided."""
        facts = self._state.facts(container.name)
        if facts.running is None or facts.attempt != attempt:
            return
        if kind is ProbeKind.READINESS:
            self._set(container.name, msgspec.structs.replace(facts, is_ready=is_success))
        elif kind is ProbeKind.STARTUP and is_success:
            self._set(container.name, msgspec.structs.replace(facts, is_started=True))
        elif not is_success and not facts.is_stopping and self._state.terminating_since is None:
            word = kind.value.lower()
            self._event(
                "Normal", "Killing", f"Container {container.name} failed {word} probe, will be restarted", container
            )
            probe = container.liveness_probe if kind is ProbeKind.LIVENESS else container.startup_probe
            self._set(container.name, msgspec.structs.replace(facts, is_stopping=True, is_ready=False))
            if self._group is not None:
                work = self._stop(container.name, self._grace_s(probe), f"{word} probe failed")
                spawn(self._group, work, name=f"stop {self._pod.key} {container.name}")

    def probe_failed(self, container: Container, kind: ProbeKind, message: str) -> None:
        """One look has failed."""
        self._event("Warning", "Unhealthy", f"{kind.value} probe failed: {message}", container)

    def _grace_s(self, probe: Probe | None) -> float:
        own = probe.termination_grace_period_seconds if probe else None
        return float(self._pod.spec.termination_grace_period_seconds if own is None else own)

    # Telling the API

    async def _report_loop(self) -> None:
        failures = 0
        while True:
            await self._report.wait()
            self._report.clear()
            try:
                await self._write_status()
                failures = 0
            except NotFoundError:
                continue
            except ApiError as exc:
                failures += 1
                logger.info("pod status not written", extra={"pod": self._pod.key, "error": str(exc)})
                await asyncio.sleep(_RETRY.ceiling_s(failures))
                self._report.set()

    async def _write_status(self) -> None:
        """Patch the status when it differs from what was written last. Raises ApiError."""
        if self._state.is_gone:
            return
        self._announce_backoff()
        status = pod_status(
            self._pod,
            self._state,
            self._tools.clock.wall(),
            self._tools.settings,
            host_ip=self._tools.host_ip,
            known=self._known_conditions,
        )
        if status == self._reported:
            return
        meta = self._pod.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": status}
        await self._tools.client.patch(
            PODS, meta.name, patch, meta.namespace, patch_type=PatchType.STRATEGIC, subresource="status"
        )
        self._reported = status
        self._known_conditions = tuple(Condition.of(one) for one in status["conditions"])

    def _announce_backoff(self) -> None:
        now = self._tools.clock.wall()
        if self._state.terminating_since is not None or self._state.final_phase:
            return
        init_names = {c.name for c in self._pod.spec.init_containers}
        for container in (*self._pod.spec.init_containers, *self._pod.spec.containers):
            facts = self._state.facts(container.name)
            if facts.last is None or facts.running is not None or now >= restart_at(facts, self._tools.settings):
                continue
            if wants_restart(self._pod, container, facts.last.exit_code, is_init=container.name in init_names):
                text = f"Back-off restarting failed container {container.name} in pod {self._pod.metadata.name}"
                self._event("Warning", "BackOff", text, container)

    async def _finish(self) -> None:
        """The last status, then the deletion itself; then nothing of the pod is left on this node. Raises ApiError."""
        meta = self._pod.metadata
        if not self._state.is_gone:
            with contextlib.suppress(NotFoundError, ConflictError):
                await self._write_status()
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

    def _event(self, type_: str, reason: str, message: str, container: Container | None = None) -> None:
        meta = self._pod.metadata
        path = ""
        if container is not None:
            is_init = container in self._pod.spec.init_containers
            path = f"spec.{'initContainers' if is_init else 'containers'}{{{container.name}}}"
        about = ObjectReference(
            api_version="v1", kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid, field_path=path
        )
        self._tools.recorder.event(about, type_, reason, message)


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
