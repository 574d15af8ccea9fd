"""Takes what the control plane sends to all workers; `mesh.xds.client.Receiver` for a group.

Decoded here too: to say what is wrong with a resource, to know what to ask for, and when a configuration is complete.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.errors import MeshError
from mesh.xds.client import Outcome
from mesh.xds.errors import DecodeError
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.decode.assembly import Assembly
from sidecar.workers.group import Configuration, WorkerGroup
from sidecar.workers.ports import PortReservations
from sidecar.workers.staging import Raw, RawResources, difference


class GroupReceiver:
    """Configures a group of workers."""

    def __init__(self, group: WorkerGroup, reservations: PortReservations) -> None:
        self._group = group
        self._reservations = reservations
        self._assembly = Assembly()
        self._raw = RawResources()
        self._good: Raw = {}
        self._seen: set[str] = set()
        self.has_complete_config = False
        """A configuration with clusters and listeners, and with all they refer to, has been applied by all workers."""

    def stage(self, type_url: str, added: Sequence[tuple[str, Any]], removed: Sequence[str]) -> Mapping[str, str]:
        rejected: dict[str, str] = {}
        for name, packed in added:
            try:
                self._assembly.put(type_url, name, packed)
            except DecodeError as exc:
                rejected[name] = str(exc)
            else:
                self._raw.put(type_url, name, packed)
        for name in removed:
            self._assembly.remove(type_url, name)
            self._raw.remove(type_url, name)
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
            raw = self._raw.of(self._assembly.staged)
            whole = Configuration(stages=lambda: difference({}, raw), ports=self._reservations.ports_of(snapshot))
            await self._group.apply(difference(self._good, raw), whole)
        except MeshError:
            self._assembly.roll_back()
            self._raw.roll_back(self._good)
            raise
        self._assembly.commit()
        self._good = raw
        if {LISTENER, CLUSTER} <= self._seen:
            self.has_complete_config = True
        return Outcome.APPLIED
