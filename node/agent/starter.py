"""Starts one run of a container, and notes why one could not be started and when to try again."""

import msgspec

from mesh.api.pod import Container
from mesh.backoff import Backoff
from mesh.net.errors import SpawnerGoneError, SpawnError
from mesh.net.spawn import Record
from node.agent.pod_view import ChangingPod, PodEvents, WorkerTools
from node.agent.state import Termination, Trouble, ended_as, started
from node.errors import ContainerConfigError, ImageError, VolumeError

_IMAGE_RETRY = Backoff(base_s=2.0, cap_s=300.0, jitter=0.0)
_CONFIG_RETRY = Backoff(base_s=1.0, cap_s=60.0, jitter=0.0)
_START_FAILED = 128


class ContainerStarter:
    """Starts the containers of one pod."""

    def __init__(self, tools: WorkerTools, view: ChangingPod, events: PodEvents) -> None:
        self._tools = tools
        self._view = view
        self._events = events

    async def start(self, container: Container) -> Record | None:
        """Start the next run; None when that was not possible, which is then in the container's facts.

        Raises SpawnerGoneError, ApiError and NotReadyError: nothing of the pod is at fault, try again.
        """
        facts = self._view.state.facts(container.name)
        attempt = facts.attempt + 1
        try:
            image = self._tools.launcher.image(container)
            begun = await self._tools.launcher.start(self._view.pod, container, self._view.state, image, attempt)
        except ImageError as exc:
            self._image_trouble(container, exc)
            return None
        except (ContainerConfigError, VolumeError) as exc:
            self._config_trouble(container, str(exc))
            return None
        except SpawnerGoneError:
            raise
        except SpawnError as exc:
            self._start_failed(container, attempt, str(exc))
            return None
        facts = started(facts, begun.record, attempt, image=begun.image, is_forked=begun.is_forked)
        self._view.set_facts(container.name, facts)
        about = f'Container image "{container.image}" already present on machine'
        self._events.event("Normal", "Pulled", about, container)
        self._events.event("Normal", "Created", f"Created container: {container.name}", container)
        self._events.event("Normal", "Started", f"Started container {container.name}", container)
        return begun.record

    def _image_trouble(self, container: Container, exc: ImageError) -> None:
        facts = self._view.state.facts(container.name)
        tries = facts.trouble.tries + 1 if facts.trouble else 1
        if tries == 1:
            self._events.event("Warning", "Failed", f"Failed to pull image: {exc}", container)
            self._events.event("Warning", "Failed", "Error: ErrImagePull", container)
        else:
            self._events.event("Normal", "BackOff", f'Back-off pulling image "{container.image}"', container)
            self._events.event("Warning", "Failed", "Error: ImagePullBackOff", container)
        reason = "ErrImagePull" if tries == 1 else "ImagePullBackOff"
        text = str(exc) if tries == 1 else f'Back-off pulling image "{container.image}": {exc}'
        self._trouble(container, Trouble(reason=reason, message=text, tries=tries), _IMAGE_RETRY)

    def _config_trouble(self, container: Container, message: str) -> None:
        facts = self._view.state.facts(container.name)
        tries = facts.trouble.tries + 1 if facts.trouble else 1
        self._events.event("Warning", "Failed", f"Error: {message}", container)
        trouble = Trouble(reason="CreateContainerConfigError", message=message, tries=tries)
        self._trouble(container, trouble, _CONFIG_RETRY)

    def _trouble(self, container: Container, trouble: Trouble, retry: Backoff) -> None:
        at = self._tools.clock.wall() + retry.ceiling_s(trouble.tries)
        facts = self._view.state.facts(container.name)
        trouble = msgspec.structs.replace(trouble, retry_at=at)
        self._view.set_facts(container.name, msgspec.structs.replace(facts, trouble=trouble))

    def _start_failed(self, container: Container, attempt: int, message: str) -> None:
        """The program could not be executed: a run that ended at once, as container runtimes see it."""
        now = self._tools.clock.wall()
        facts = self._view.state.facts(container.name)
        begun = msgspec.structs.replace(facts, attempt=attempt, previous=facts.last or facts.previous, trouble=None)
        end = Termination(
            exit_code=_START_FAILED,
            reason="StartError",
            message=message,
            started_at=now,
            finished_at=now,
            attempt=attempt,
        )
        self._events.event(
            "Warning", "Failed", f"Error: failed to start container {container.name!r}: {message}", container
        )
        self._view.set_facts(container.name, ended_as(begun, end, restart_reset_s=self._tools.settings.restart_reset_s))
