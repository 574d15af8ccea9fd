"""Takes what the control plane sends to the data plane: decode, assemble, apply, or stay with the last good configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mesh.errors import MeshError
from mesh.xds.client import Outcome
from mesh.xds.errors import DecodeError
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.config import Snapshot
from sidecar.decode.assembly import Assembly
from sidecar.server import DataPlane


class SnapshotReceiver:
    """`mesh.xds.client.Receiver` for a data plane."""

    def __init__(self, plane: DataPlane, on_applied: Callable[[Snapshot], None]) -> None:
        self._plane = plane
        self._on_applied = on_applied
        self._assembly = Assembly()
        self._seen: set[str] = set()
        self.has_complete_config = False
        """A configuration with clusters and listeners, and with all they refer to, has been applied."""

    def stage(self, type_url: str, added: Sequence[tuple[str, Any]], removed: Sequence[str]) -> Mapping[str, str]:
        rejected: dict[str, str] = {}
        for name, packed in added:
            try:
                self._assembly.put(type_url, name, packed)
            except DecodeError as exc:
                rejected[name] = str(exc)
        for name in removed:
            self._assembly.remove(type_url, name)
        self._assembly.forget_unwanted()
        self._seen.add(type_url)
        return rejected

    def wanted(self) -> Mapping[str, frozenset[str]]:
        staged = self._assembly.staged
        return {ENDPOINT: staged.wanted_endpoints(), ROUTE: staged.wanted_routes()}

    async def apply(self, *, despite_missing: bool = False) -> Outcome:
        try:
            snapshot = self._assembly.snapshot(despite_missing=despite_missing)
            if snapshot is None:
                return Outcome.INCOMPLETE
            await self._plane.apply(snapshot)
        except MeshError:
            self._assembly.roll_back()
            raise
        self._assembly.commit()
        if {LISTENER, CLUSTER} <= self._seen:
            self.has_complete_config = True
        self._on_applied(snapshot)
        return Outcome.APPLIED
