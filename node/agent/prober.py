"""Runs probes and hooks: HTTP, TCP and commands, from the node to the pod's address. `probes` decides what results mean."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from mesh.api.meta import IntOrString
from mesh.api.pod import Container, ExecAction, HttpGetAction, Probe
from mesh.errors import MeshError
from mesh.net.tasks import spawn
from node.agent.probes import ProbeKind, ProbeState, eager_waits_s, first_wait_s, observe
from node.errors import ContainerConfigError
from node.runtime.spawners import CommandResult

_MAX_BODY_SHOWN = 200
_USER_AGENT = "meshwork-probe"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One look."""

    is_success: bool
    message: str = ""


RunCommand = Callable[[tuple[str, ...], float], Awaitable[CommandResult]]
"""Runs a command inside the container; (command, timeout in seconds)."""


class Checker:
    """Looks at one pod's address. One per node; `session` is shared."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """`session` must keep no connections alive (force_close) and verify no certificates, as kubelet does."""
        self._session = session

    async def check(self, probe: Probe, container: Container, address: str, run: RunCommand) -> CheckResult:
        """Look once, for at most the probe's timeout. Never raises but for cancellation."""
        timeout_s = float(max(1, probe.timeout_seconds))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._look(probe, container, address, run, timeout_s)
        except TimeoutError:
            return CheckResult(False, f"no answer within {timeout_s:g} s")
        except (MeshError, OSError, aiohttp.ClientError, ValueError) as exc:
            return CheckResult(False, str(exc) or type(exc).__name__)

    async def _look(
        self, probe: Probe, container: Container, address: str, run: RunCommand, timeout_s: float
    ) -> CheckResult:
        if probe.http_get is not None:
            return await self.http(probe.http_get, container, address)
        if probe.tcp_socket is not None:
            port = port_number(probe.tcp_socket.port, container)
            _, writer = await asyncio.open_connection(probe.tcp_socket.host or address, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return CheckResult(True)
        if probe.exec is not None:
            return await _command(probe.exec, run, timeout_s)
        return CheckResult(False, "this node runs httpGet, tcpSocket and exec probes; the probe names none of them")

    async def http(self, action: HttpGetAction, container: Container, address: str) -> CheckResult:
        """GET; 200 to 399 is a success. DEVIATION: a redirect counts as it is, kubelet follows those to the same host."""
        host = action.host or address
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        url = f"{action.scheme.lower()}://{host}:{port_number(action.port, container)}{path}"
        headers = {"User-Agent": _USER_AGENT, "Accept": "*/*"} | {h.name: h.value for h in action.http_headers}
        async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
            if 200 <= answer.status < 400:
                return CheckResult(True)
            body = (await answer.content.read(_MAX_BODY_SHOWN)).decode(errors="replace")
            return CheckResult(False, f"HTTP probe failed with statuscode: {answer.status} {body}".rstrip())


async def _command(action: ExecAction, run: RunCommand, timeout_s: float) -> CheckResult:
    result = await run(action.command, timeout_s)
    text = result.output.decode(errors="replace").strip()
    if result.exit_code == -1:
        return CheckResult(False, f"command timed out after {timeout_s:g} s")
    return CheckResult(result.exit_code == 0, text or f"exit code {result.exit_code}")


def port_number(port: IntOrString, container: Container) -> int:
    """A probe's port, also by the name of a container port. Raises ContainerConfigError."""
    if isinstance(port, str) and not port.isdigit():
        for known in container.ports:
            if known.name == port:
                return known.container_port
        raise ContainerConfigError(f'container "{container.name}" has no port named "{port}"')
    number = int(port)
    if not 1 <= number <= 65535:
        raise ContainerConfigError(f"port {number} is out of range 1-65535")
    return number


class ProbeListener(Protocol):
    """Who wants to know. Called on the loop."""

    def verdict(self, kind: ProbeKind, is_success: bool, message: str) -> None:
        """A probe's verdict is new or has changed."""
        ...

    def failed(self, kind: ProbeKind, message: str) -> None:
        """One look that counts has failed."""
        ...


async def watch_container(
    container: Container,
    look: Callable[[Probe], Awaitable[CheckResult]],
    listener: ProbeListener,
    *,
    ran_s: float,
    is_started: bool,
    is_ready: bool,
) -> None:
    """Probe one run of a container until cancelled: first startup, then readiness and liveness.

    Ends by itself when the startup or liveness probe has failed: then the container is to be stopped.
    `is_started` and `is_ready` are what an earlier agent found.
    """
    if not is_started:
        if container.startup_probe is not None:
            started = await _until_decided(container.startup_probe, ProbeKind.STARTUP, look, listener, ran_s)
            listener.verdict(ProbeKind.STARTUP, started, "")
            if not started:
                return
            ran_s = float("inf")
        else:
            listener.verdict(ProbeKind.STARTUP, True, "")
    async with asyncio.TaskGroup() as group:
        if (readiness := container.readiness_probe) is not None:
            state = ProbeState(is_ready or None)
            work = _follow(readiness, ProbeKind.READINESS, look, listener, ran_s, state)
            spawn(group, work, name=f"readiness {container.name}")
        if (liveness := container.liveness_probe) is not None:
            work = _follow(liveness, ProbeKind.LIVENESS, look, listener, ran_s, ProbeState(True))
            spawn(group, work, name=f"liveness {container.name}")


async def _until_decided(
    probe: Probe,
    kind: ProbeKind,
    look: Callable[[Probe], Awaitable[CheckResult]],
    listener: ProbeListener,
    ran_s: float,
) -> bool:
    state = ProbeState()
    await asyncio.sleep(first_wait_s(probe, kind, ran_s))
    while True:
        state = await _look_once(probe, kind, look, listener, state)
        if state.verdict is not None:
            return state.verdict
        if await _wait_eagerly(probe, look):
            return True


async def _follow(
    probe: Probe,
    kind: ProbeKind,
    look: Callable[[Probe], Awaitable[CheckResult]],
    listener: ProbeListener,
    ran_s: float,
    state: ProbeState,
) -> None:
    await asyncio.sleep(first_wait_s(probe, kind, ran_s))
    has_succeeded = bool(state.verdict)
    while True:
        before = state.verdict
        state = await _look_once(probe, kind, look, listener, state)
        if state.verdict is not None and state.verdict != before:
            listener.verdict(kind, state.verdict, "")
            if kind is ProbeKind.LIVENESS:
                return
        has_succeeded |= bool(state.verdict)
        if has_succeeded:
            await asyncio.sleep(max(1, probe.period_seconds))
        elif await _wait_eagerly(probe, look):
            state = ProbeState(True, 1, True)
            has_succeeded = True
            listener.verdict(kind, True, "")
            await asyncio.sleep(max(1, probe.period_seconds))


async def _look_once(
    probe: Probe,
    kind: ProbeKind,
    look: Callable[[Probe], Awaitable[CheckResult]],
    listener: ProbeListener,
    state: ProbeState,
) -> ProbeState:
    result = await look(probe)
    if not result.is_success:
        listener.failed(kind, result.message)
    return observe(probe, state, result.is_success)


async def _wait_eagerly(probe: Probe, look: Callable[[Probe], Awaitable[CheckResult]]) -> bool:
    """Wait for the next period, looking a few times in between. True as soon as one look succeeds."""
    left_s = float(max(1, probe.period_seconds))
    for wait_s in eager_waits_s(probe):
        await asyncio.sleep(wait_s)
        left_s -= wait_s
        if (await look(probe)).is_success:
            return True
    await asyncio.sleep(max(0.0, left_s))
    return False
