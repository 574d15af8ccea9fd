"""Takes what the control plane sends to the data plane: decode, assemble, apply, or stay with the last good configuration."""

from collections.abc import Callable

from mesh.errors import MeshError
from mesh.xds.client import Outcome
from sidecar.config import Snapshot
from sidecar.decode.staging import Staging
from sidecar.server import DataPlane


class SnapshotReceiver(Staging):
    """`mesh.xds.client.Receiver` for a data plane."""

    def __init__(self, plane: DataPlane, on_applied: Callable[[Snapshot], None]) -> None:
        super().__init__()
        self._plane = plane
        self._on_applied = on_applied

    async def apply(self, *, despite_missing: bool = False) -> Outcome:
        try:
            snapshot = self._assembly.snapshot(despite_missing=despite_missing)
            if snapshot is None:
                return Outcome.INCOMPLETE
            await self._plane.apply(snapshot)
        except MeshError:
            self._assembly.roll_back()
            raise
        self._on_applied_all()
        self._on_applied(snapshot)
        return Outcome.APPLIED
