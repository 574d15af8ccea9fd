"""Discovery put together: informers feed the world, the publisher builds, ADS serves, statuses are written back."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from controlplane.discovery.ads import AdsServer
from controlplane.discovery.authentication import TokenChecker
from controlplane.discovery.config import DiscoveryConfig
from controlplane.discovery.drains import DrainTracker
from controlplane.discovery.facts import ObjectKey, PodFacts, pod_facts, service_facts, slice_facts
from controlplane.discovery.localities import node_locality
from controlplane.discovery.monitor import serve_monitor
from controlplane.discovery.policy_status import PolicyStatusTracker
from controlplane.discovery.publisher import Observer, Publisher
from controlplane.discovery.status_writer import StatusWriter
from controlplane.discovery.system_services import ensure_system_services
from controlplane.discovery.world import World
from mesh.api.core import Node, Service
from mesh.api.discovery import EndpointSlice
from mesh.api.gateway import HttpRoute
from mesh.api.meta import ObjectView
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.pod import Pod
from mesh.api.resources import (
    DESTINATION_RULES,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    NODES,
    PODS,
    SERVICES,
    TRAFFIC_LIMITS,
    VIRTUAL_SERVICES,
    Json,
    Resource,
)
from mesh.api.traffic_limit import TrafficLimit
from mesh.client.errors import ApiError
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient
from mesh.clock import Clock, SystemClock
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

View = TypeVar("View", bound=ObjectView)
_SYSTEM_SERVICES_RETRY_S = 0.5


class Discovery:
    """All of discovery but its lifetime; `run` lives until cancelled."""

    def __init__(self, client: ApiClient, config: DiscoveryConfig, clock: Clock | None = None) -> None:
        self._client = client
        self._config = config
        clock = clock or SystemClock()
        self.world = World(config.mesh.domain)
        self.publisher = Publisher(self.world, config, self._observers, clock)
        proxies = self.publisher.proxies
        self._writer = StatusWriter(client, self.world, clock)
        self._statuses = PolicyStatusTracker(
            proxies,
            lambda: self.publisher.builder.policies.verdicts.items(),
            self._writer.policy_changed,
            clock,
            delay_s=config.status_delay_s,
            absent=self._absent,
        )
        self._drains = DrainTracker(self.world, proxies, self._writer.pod_drained, self._absent)
        self.ads = AdsServer(self.publisher, TokenChecker(client, clock), self.world.pods.__contains__, config)
        self.monitor_port = 0
        self.is_serving = asyncio.Event()
        """Set when everything has been read and both servers listen."""
        self._informers = self._make_informers()

    def _observers(self) -> tuple[Observer, ...]:
        return (self._statuses, self._drains)

    def _absent(self) -> tuple[ObjectKey, ...]:
        """Pods with a sidecar at work that is not connected: discovery was restarted, or can't be reached from there."""
        connected = {proxy.identity.key for proxy in self.publisher.proxies}
        return tuple(key for key, pod in self.world.pods.items() if pod.has_ready_sidecar and key not in connected)

    def _make_informers(self) -> tuple[Informer[Any], ...]:
        world = self.world
        return (
            self._informer(
                SERVICES, Service.of, lambda k, v: world.put_service(k, service_facts(v, world.domain) if v else None)
            ),
            self._informer(
                ENDPOINT_SLICES, EndpointSlice.of, lambda k, v: world.put_slice(k, slice_facts(v) if v else None)
            ),
            self._pod_informer(),
            self._informer(NODES, Node.of, lambda k, v: world.put_node(k[1], node_locality(v) if v else None)),
            self._informer(VIRTUAL_SERVICES, VirtualService.of, world.put_virtual_service),
            self._informer(DESTINATION_RULES, DestinationRule.of, world.put_destination_rule),
            self._informer(HTTP_ROUTES, HttpRoute.of, world.put_http_route),
            self._informer(TRAFFIC_LIMITS, TrafficLimit.of, world.put_traffic_limit),
        )

    def _informer(
        self, resource: Resource, decode: Callable[[Json], View], put: Callable[[ObjectKey, View | None], None]
    ) -> Informer[View]:
        def on_change(change: Change[View]) -> None:
            meta = change.object.metadata
            put((meta.namespace, meta.name), change.new)
            self.publisher.changed()

        informer = Informer(self._client, resource, decode)
        informer.add_handler(on_change)
        return informer

    def _pod_informer(self) -> Informer[PodFacts]:
        def on_change(change: Change[PodFacts]) -> None:
            key = change.object.key
            self.world.put_pod(key, change.new)
            self.publisher.changed()
            self._drains.pod_changed(key)
            self._statuses.on_progress()

        informer = Informer(self._client, PODS, lambda obj: pod_facts(Pod.of(obj), obj))
        informer.add_handler(on_change)
        return informer

    async def run(self) -> None:
        """Serve until cancelled. Nothing is served before everything has been read: a half-known mesh is never pushed."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                spawn(group, informer.run(), name=f"informer {informer.resource.plural}")
            for informer in self._informers:
                await informer.wait_synced()
            spawn(group, self._writer.run(self._statuses, self._drains), name="status writer")
            self.publisher.open()
            await self._serve(group)

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        async with serve_monitor(self.publisher, self._config) as self.monitor_port:
            try:
                await self.ads.start()
                logger.info("discovery serves", extra={"ads_port": self.ads.port, "monitor_port": self.monitor_port})
                spawn(group, self._ensure_system_services(), name="system services")
                self.is_serving.set()
                await asyncio.Event().wait()
            finally:
                await self.ads.stop()

    async def _ensure_system_services(self) -> None:
        bound = dataclasses.replace(self._config, ads_port=self.ads.port, monitor_port=self.monitor_port)
        while True:
            try:
                await ensure_system_services(self._client, bound)
                return
            except ApiError as exc:
                logger.warning("system services not written; trying again", extra={"why": str(exc)})
            await asyncio.sleep(_SYSTEM_SERVICES_RETRY_S)


async def run(client: ApiClient, config: DiscoveryConfig) -> None:
    """Discovery, until cancelled. Raises DiscoveryConfigError when an address or a file is unusable."""
    await Discovery(client, config).run()
