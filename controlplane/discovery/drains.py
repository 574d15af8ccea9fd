"""Acknowledged drain: a pod on its way out is told when no proxy sends it new requests any more."""

from collections.abc import Callable

from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.proxies import ConnectedProxy, ProxyRegistry
from controlplane.discovery.snapshot import Snapshot
from controlplane.discovery.world import World


class DrainTracker:
    """An observer of the publisher; `is_drained` answers, `on_change` says when to ask."""

    def __init__(
        self,
        world: World,
        proxies: ProxyRegistry,
        on_change: Callable[[ObjectKey], None],
        absent: Callable[[], tuple[ObjectKey, ...]] = lambda: (),
    ) -> None:
        """`absent` names the pods whose sidecars are at work but not connected: what they hold is not known."""
        self._absent = absent
        self._world = world
        self._proxies = proxies
        self._on_change = on_change
        self._in_use: frozenset[ObjectKey] = frozenset()
        self._removed: dict[ObjectKey, int] = {}
        """pod -> the first snapshot without it."""
        self._leaving: set[ObjectKey] = set()

    def pod_changed(self, key: ObjectKey) -> None:
        """The pod has come, changed or gone; call after the publisher has seen it."""
        pod = self._world.pods.get(key)
        if pod is None:
            self._leaving.discard(key)
            self._removed.pop(key, None)
        elif pod.is_terminating and not pod.is_drained:
            self._leaving.add(key)
            self._tell(key)
        else:
            self._leaving.discard(key)

    def on_published(self, snapshot: Snapshot) -> None:
        for gone in self._in_use - snapshot.pods:
            self._removed[gone] = snapshot.serial
        for back in snapshot.pods & self._removed.keys():
            del self._removed[back]
        self._in_use = snapshot.pods
        for unknown in self._removed.keys() - self._world.pods.keys():
            del self._removed[unknown]
        self.on_progress()

    def on_progress(self) -> None:
        for key in tuple(self._leaving):
            self._tell(key)

    def on_refused(self, proxy: ConnectedProxy, since: int, reason: str) -> None:
        """A refusal ends the wait for that proxy: it keeps its last good endpoints, and its retries have to help."""

    def _tell(self, key: ObjectKey) -> None:
        if self.is_drained(key):
            self._leaving.discard(key)
            self._on_change(key)

    def is_drained(self, key: ObjectKey) -> bool:
        """No snapshot in force anywhere has the pod as an endpoint. Its own proxy is not asked."""
        if key in self._in_use:
            return False
        serial = self._removed.get(key, 0)
        if any(proxy.identity.key != key for proxy in self._proxies.behind(serial)):
            return False
        return not any(absent != key for absent in self._absent())
