"""What a node remembers of one pod, and its file, from which a new agent goes on where the last one stopped."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mesh.api.resources import Json
from mesh.net.spawn import Record
from node.errors import StateError

SHIFTED_BY_SIGNAL = 128
"""An exit by signal N shows as exit code 128+N, as shells and container runtimes do."""


class Termination(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a container ended. Times are seconds since the epoch."""

    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    attempt: int = 0


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a container could not be started the last time; it is tried again."""

    reason: str
    message: str
    tries: int = 1
    retry_at: float = 0.0
    """Seconds since the epoch."""


class ContainerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one container. A run is numbered from 1: its attempt."""

    attempt: int = 0
    """0 = never started."""
    running: Record | None = None
    is_forked: bool = False
    """It runs in the sidecar spawner."""
    last: Termination | None = None
    """How the current attempt ended; None while it runs or before the first."""
    previous: Termination | None = None
    """How the attempt before ended."""
    crashes: int = 0
    """Ends in a row without a long run between them."""
    trouble: Trouble | None = None
    is_started: bool = False
    """The startup probe has succeeded, or there is none."""
    is_ready: bool = False
    is_stopping: bool = False
    """A stop has been ordered for this attempt."""
    image: str = ""
    """HostImage that stands for the image."""

    @property
    def has_ended(self) -> bool:
        """It ran and runs no more."""
        return self.running is None and self.last is not None

    @property
    def restart_count(self) -> int:
        return max(0, self.attempt - 1)


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a new agent needs to go on with a pod. Times are seconds since the epoch."""

    pod: Json
    """The object as last seen, without managedFields."""
    started_at: float = 0.0
    """When this node accepted the pod."""
    address: str = ""
    """The pod's; "" before its network is set up, kept after it was taken away."""
    netns_path: str = ""
    has_sandbox: bool = False
    """Network and volumes are set up."""
    containers: Mapping[str, ContainerFacts] = {}
    terminating_since: float | None = None
    """When this node first saw that the pod is to end."""
    is_gone: bool = False
    """The object has left the API."""
    final_phase: str = ""
    """Succeeded or Failed once decided; never changes back."""
    final_reason: str = ""
    final_message: str = ""

    def facts(self, name: str) -> ContainerFacts:
        """What is known of container `name`; nothing, before its first start."""
        return self.containers.get(name, _NOTHING)

    def with_facts(self, name: str, facts: ContainerFacts) -> "PodState":
        """A copy in which container `name` has `facts`."""
        return msgspec.structs.replace(self, containers={**self.containers, name: facts})


_NOTHING = ContainerFacts()


def container_id(uid: str, name: str, attempt: int) -> str:
    """The spawner's id of one run."""
    return f"{uid}/{name}/{attempt}"


def split_container_id(id_: str) -> tuple[str, str, int] | None:
    """(uid, name, attempt), or None for an id of something else (a probe's command)."""
    parts = id_.split("/")
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    return parts[0], parts[1], int(parts[2])


def ended(facts: ContainerFacts, record: Record, *, restart_reset_s: float, reason: str = "") -> ContainerFacts:
    """`facts` after the current attempt ended as `record` says."""
    status = record.exit_status or 0
    signal = -status if status < 0 else 0
    code = SHIFTED_BY_SIGNAL + signal if signal else status
    termination = Termination(
        exit_code=code,
        signal=signal,
        reason=reason or ("Completed" if code == 0 else "Error"),
        started_at=record.started_at,
        finished_at=record.finished_at,
        attempt=facts.attempt,
    )
    return ended_as(facts, termination, restart_reset_s=restart_reset_s)


def ended_as(facts: ContainerFacts, termination: Termination, *, restart_reset_s: float) -> ContainerFacts:
    """`facts` after the current attempt ended as `termination` says."""
    ran_s = termination.finished_at - termination.started_at
    return msgspec.structs.replace(
        facts,
        running=None,
        last=termination,
        crashes=1 if ran_s >= restart_reset_s else facts.crashes + 1,
        is_started=False,
        is_ready=False,
        is_stopping=False,
    )


def started(facts: ContainerFacts, record: Record, attempt: int, *, image: str, is_forked: bool) -> ContainerFacts:
    """`facts` after `attempt` was started as `record`."""
    return msgspec.structs.replace(
        facts,
        attempt=attempt,
        running=record,
        is_forked=is_forked,
        previous=facts.last or facts.previous,
        last=None,
        trouble=None,
        is_started=False,
        is_ready=False,
        is_stopping=False,
        image=image,
    )


_decoder = msgspec.json.Decoder(PodState)


def save_state(path: Path, state: PodState) -> None:
    """Replace the file in one step. A crash of the agent leaves the old or the new one. Raises OSError."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(state))
    os.replace(temporary, path)


def load_state(path: Path) -> PodState:
    """Read a pod's file. Raises StateError."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as exc:
        raise StateError(f"{path}: {exc}") from exc
