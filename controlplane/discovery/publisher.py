"""Decides when a new snapshot is built, shows it to the proxies, and knows how far they have got."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from controlplane.discovery.builder import Builder
from controlplane.discovery.config import DiscoveryConfig
from controlplane.discovery.errors import SnapshotError
from controlplane.discovery.proxies import ConnectedProxy, ProxyIdentity, ProxyRegistry
from controlplane.discovery.snapshot import NO_TABLES, Scope, Snapshot, Tables
from controlplane.discovery.stream import StreamState
from controlplane.discovery.world import Dirty, World
from mesh.clock import Clock, SystemClock

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told what happens to snapshots. Must not block."""

    def on_published(self, snapshot: Snapshot) -> None:
        """A snapshot was built and shown to every proxy."""
        ...

    def on_progress(self) -> None:
        """A proxy has answered, come or gone."""
        ...

    def on_refused(self, proxy: ConnectedProxy, since: int, reason: str) -> None:
        """A proxy has refused something of the snapshots after `since` up to the one it is shown."""
        ...


class Publisher:
    """One per process. Everything runs on the event loop; nothing awaits."""

    def __init__(
        self,
        world: World,
        config: DiscoveryConfig,
        observers: Callable[[], tuple[Observer, ...]],
        clock: Clock | None = None,
    ) -> None:
        self._world = world
        self._config = config
        self._observers = observers
        self._clock = clock or SystemClock()
        self._timer: asyncio.TimerHandle | None = None
        self._first_change: float | None = None
        self._is_open = False
        self.builder = Builder(world, config.mesh)
        self.proxies = ProxyRegistry()
        self.snapshot = Snapshot(serial=0)

    def open(self) -> None:
        """The world is complete: build the first snapshot and publish from now on."""
        self._is_open = True
        self.publish()

    def changed(self) -> None:
        """The world has changed: publish soon, or at once when an endpoint is gone."""
        if not self._is_open or not self._world.dirty:
            return
        if self._world.dirty.has_removals:
            self.publish()
            return
        now = self._clock.now()
        if self._first_change is None:
            self._first_change = now
        elif now - self._first_change >= self._config.debounce_max_s:
            return  # the timer that is set fires in time
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._config.debounce_s, self.publish)

    def publish(self) -> None:
        """Build what is dirty and show it. An inconsistent snapshot is logged and the old one stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._first_change = None
        dirty = self._world.take_dirty()
        if dirty.has_new_policies or self.snapshot.serial == 0:
            self.builder.settle_policies()
            for proxy in self.proxies:
                proxy.scope = self._scope_of(proxy.identity)
        if self._build(dirty):
            for proxy in self.proxies:
                self._show(proxy)
            for observer in self._observers():
                observer.on_published(self.snapshot)

    def _build(self, dirty: Dirty) -> bool:
        try:
            self.snapshot = self.builder.build(dirty, self.proxies.scopes())
        except SnapshotError:
            logger.exception("snapshot refused; the last one stays in force", extra={"serial": self.snapshot.serial})
            dirty.is_structural = True
            self._world.dirty = dirty
            return False
        return True

    def _scope_of(self, identity: ProxyIdentity) -> Scope:
        pod = self._world.pods.get(identity.key)
        labels = dict(pod.labels) if pod is not None else identity.labels
        return self.builder.scope_of(
            identity.namespace, labels, pod, intercepts=identity.intercepts, node=identity.node
        )

    def _show(self, proxy: ConnectedProxy) -> None:
        proxy.state.show(self.tables_of(proxy))
        proxy.shown_serial = self.snapshot.serial
        if proxy.state.is_settled:
            self._settled(proxy)
        else:
            proxy.wake.set()

    def tables_of(self, proxy: ConnectedProxy) -> Tables:
        """What the proxy should have now."""
        return self.snapshot.scopes.get(proxy.scope, NO_TABLES)

    def connect(self, identity: ProxyIdentity, *, is_delta: bool) -> ConnectedProxy:
        """A stream has told who it is. Builds the tables of its scope if it is the first of it."""
        proxy = ConnectedProxy(identity, StreamState(is_delta=is_delta), self._scope_of(identity))
        self.proxies.add(proxy)
        if proxy.scope in self.snapshot.scopes:
            self._show(proxy)
        else:
            self.publish()
        return proxy

    def disconnect(self, proxy: ConnectedProxy) -> None:
        """The stream has ended; nobody waits for it any more."""
        self.proxies.remove(proxy)
        for observer in self._observers():
            observer.on_progress()

    def answered(self, proxy: ConnectedProxy, refusal: str = "") -> None:
        """The proxy has answered something, or was sent something. `refusal`: why it did not take it, if so."""
        if refusal:
            for observer in self._observers():
                observer.on_refused(proxy, proxy.settled_serial, refusal)
        if proxy.settled_serial < proxy.shown_serial and proxy.state.is_settled:
            self._settled(proxy)
            for observer in self._observers():
                observer.on_progress()

    def _settled(self, proxy: ConnectedProxy) -> None:
        proxy.settled_serial = proxy.shown_serial
        proxy.settled_at = self._clock.wall()
