"""A worker's copy of the resources, and the control process's record of them in raw form. Pure.

The control process has decoded and checked every resource; a worker decodes it again, because values of many objects are cheaper to
make twice than to send.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf import any_pb2

from mesh.xds.type_urls import IN_ORDER
from sidecar.config import Snapshot
from sidecar.decode.assembly import Assembly, Resources
from sidecar.workers.messages import MAX_STAGE_BYTES, Stage

Raw = Mapping[tuple[str, str], bytes | None]
"""(type URL, name) -> google.protobuf.Any as bytes; None: known to be empty."""

_ENTRY_BYTES: Final = 128
"""What an entry costs beside its value, about."""


class Staging:
    """A worker's resources on their way to a snapshot."""

    def __init__(self) -> None:
        self._assembly = Assembly()

    def stage(self, stage: Stage) -> None:
        """Take resources. Raises DecodeError."""
        for type_url, name in stage.drop:
            self._assembly.staged.of_type(type_url).pop(name, None)
        for type_url, name, raw in stage.put:
            if raw is None:
                self._assembly.remove(type_url, name)
            else:
                self._assembly.put(type_url, name, any_pb2.Any.FromString(raw))

    def snapshot(self) -> Snapshot:
        """The snapshot; whether it is complete was the control process's decision. Raises DecodeError."""
        found = self._assembly.snapshot(despite_missing=True)
        assert found is not None
        return found

    def commit(self) -> None:
        """The snapshot works."""
        self._assembly.commit()

    def roll_back(self) -> None:
        """Forget what was staged since the last commit."""
        self._assembly.roll_back()


class RawResources:
    """What came over the stream, as it came."""

    def __init__(self) -> None:
        self._received: dict[tuple[str, str], bytes | None] = {}

    def put(self, type_url: str, name: str, packed: any_pb2.Any) -> None:
        """A resource that decodes."""
        self._received[type_url, name] = packed.SerializeToString()

    def remove(self, type_url: str, name: str) -> None:
        """A resource that is gone; whether it counts as known to be empty, `of` is told by what is staged."""
        self._received[type_url, name] = None

    def roll_back(self, good: Raw) -> None:
        """Staging starts again from what is in force."""
        self._received = dict(good)

    def of(self, staged: Resources) -> Raw:
        """The raw form of what is staged; forgets everything else."""
        self._received = {
            (type_url, name): self._received[type_url, name]
            for type_url in IN_ORDER
            for name in staged.of_type(type_url)
        }
        return self._received.copy()


def difference(old: Raw, new: Raw) -> Iterator[Stage]:
    """What makes `new` of `old`, in pieces of about MAX_STAGE_BYTES."""
    drop = [key for key in old if key not in new]
    put: list[tuple[str, str, bytes | None]] = []
    size = 0
    for key, raw in new.items():
        if key in old and old[key] == raw:
            continue
        put.append((*key, raw))
        size += len(raw or b"") + _ENTRY_BYTES
        if size >= MAX_STAGE_BYTES:
            yield Stage(put, drop)
            put, drop, size = [], [], 0
    if put or drop:
        yield Stage(put, drop)
