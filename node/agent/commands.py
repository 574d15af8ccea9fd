"""Commands and lifecycle hooks inside a pod's running containers."""

import asyncio

from mesh.api.pod import Container, LifecycleHandler
from mesh.errors import MeshError
from mesh.net.errors import SpawnError
from node.agent.launcher import capability_names
from node.agent.pod_view import PodView, WorkerTools
from node.agent.state import ContainerFacts
from node.runtime.spawners import CommandResult


class ContainerCommands:
    """Runs commands in the containers of one pod, for probes and hooks."""

    def __init__(self, tools: WorkerTools, view: PodView) -> None:
        self._tools = tools
        self._view = view
        self._environments: dict[str, dict[str, str]] = {}

    def forget(self, id_: str) -> None:
        """A run has ended."""
        self._environments.pop(id_, None)

    async def run_hook(
        self, container: Container, hook: LifecycleHandler, facts: ContainerFacts, timeout_s: float
    ) -> str:
        """Run a lifecycle hook; "" or what went wrong."""
        try:
            if hook.sleep is not None:
                await asyncio.sleep(hook.sleep.seconds)
            elif hook.exec is not None:
                result = await self.run(container, facts, hook.exec.command, timeout_s)
                if result.exit_code:
                    return f"exit code {result.exit_code}: {result.output.decode(errors='replace').strip()}"
            elif hook.http_get is not None:
                async with asyncio.timeout(timeout_s):
                    answer = await self._tools.checker.http(hook.http_get, container, self._view.state.address)
                return "" if answer.is_success else answer.message
        except TimeoutError:
            return f"not finished within {timeout_s:g} s"
        except (MeshError, OSError) as exc:
            return str(exc)
        return ""

    async def run(
        self, container: Container, facts: ContainerFacts, command: tuple[str, ...], timeout_s: float
    ) -> CommandResult:
        """Run a command in the container's namespaces with its environment. Raises MeshError."""
        if facts.running is None:
            raise SpawnError(f'container "{container.name}" is not running')
        return await self._tools.runtime.execute(
            facts.running,
            self._view.state.netns_path,
            command,
            env=await self._environment(container, facts.running.id),
            capabilities=capability_names(container, is_sidecar=facts.is_forked),
            timeout_s=timeout_s,
        )

    async def _environment(self, container: Container, id_: str) -> dict[str, str]:
        """The environment of a run, made once: a probe every second must not ask the API every second."""
        if id_ not in self._environments:
            image = self._tools.launcher.image(container)
            env = await self._tools.launcher.environment(self._view.pod, container, self._view.state, image)
            self._environments[id_] = env
        return self._environments[id_]
