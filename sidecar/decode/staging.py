"""What has arrived from the control plane and waits to be put in force; the part of a receiver that does not depend on who takes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.xds.errors import DecodeError
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from sidecar.decode.assembly import Assembly


class Staging:
    """Two thirds of `mesh.xds.client.Receiver`; whoever derives from it adds `apply`."""

    def __init__(self) -> None:
        self._assembly = Assembly()
        self._seen: set[str] = set()
        self.has_complete_config = False
        """A configuration with clusters and listeners, and with all they refer to, has been applied (by all workers, if there are any)."""

    def stage(self, type_url: str, added: Sequence[tuple[str, Any]], removed: Sequence[str]) -> Mapping[str, str]:
        """Decode and keep. Returns what is wrong with resources, by name; the others are kept all the same."""
        rejected: dict[str, str] = {}
        for name, packed in added:
            try:
                self._assembly.put(type_url, name, packed)
            except DecodeError as exc:
                rejected[name] = str(exc)
            else:
                self._on_staged(type_url, name, packed)
        for name in removed:
            self._assembly.remove(type_url, name)
            self._on_removed(type_url, name)
        self._assembly.forget_unwanted()
        self._seen.add(type_url)
        return rejected

    def _on_staged(self, type_url: str, name: str, packed: Any) -> None:
        """A resource can be decoded."""

    def _on_removed(self, type_url: str, name: str) -> None:
        """A resource is gone."""

    def wanted(self) -> Mapping[str, frozenset[str]]:
        """Which endpoints and routes to ask for."""
        staged = self._assembly.staged
        return {ENDPOINT: staged.wanted_endpoints(), ROUTE: staged.wanted_routes()}

    def _on_applied_all(self) -> None:
        """What was staged is in force."""
        self._assembly.commit()
        if {LISTENER, CLUSTER} <= self._seen:
            self.has_complete_config = True
