"""Takes what the control plane sends to all workers; `mesh.xds.client.Receiver` for a group.

Decoded here too: to say what is wrong with a resource, to know what to ask for, and when a configuration is complete.
"""

from typing import Any

from mesh.errors import MeshError
from mesh.xds.client import Outcome
from sidecar.decode.staging import Staging
from sidecar.workers.group import Configuration, WorkerGroup
from sidecar.workers.ports import PortReservations
from sidecar.workers.staging import Raw, RawResources, difference


class GroupReceiver(Staging):
    """Configures a group of workers."""

    def __init__(self, group: WorkerGroup, reservations: PortReservations) -> None:
        super().__init__()
        self._group = group
        self._reservations = reservations
        self._raw = RawResources()
        self._good: Raw = {}

    def _on_staged(self, type_url: str, name: str, packed: Any) -> None:
        self._raw.put(type_url, name, packed)

    def _on_removed(self, type_url: str, name: str) -> None:
        self._raw.remove(type_url, name)

    async def apply(self, *, despite_missing: bool = False) -> Outcome:
        try:
            snapshot = self._assembly.snapshot(despite_missing=despite_missing)
            if snapshot is None:
                return Outcome.INCOMPLETE
            raw = self._raw.of(self._assembly.staged)
            whole = Configuration(stages=lambda: difference({}, raw), ports=self._reservations.ports_of(snapshot))
            await self._group.apply(difference(self._good, raw), whole)
        except MeshError:
            self._assembly.roll_back()
            self._raw.roll_back(self._good)
            raise
        self._on_applied_all()
        self._good = raw
        return Outcome.APPLIED
