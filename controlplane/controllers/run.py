"""All control loops in one task group, on shared caches."""

import asyncio
import logging
from typing import Protocol

from controlplane.controllers.caches import Caches
from controlplane.controllers.config import ControllersConfig
from controlplane.controllers.deployment_controller import DeploymentController
from controlplane.controllers.endpoints_controller import EndpointsController
from controlplane.controllers.garbage_collector import GarbageCollector
from controlplane.controllers.namespace_deletion import NamespaceDeletion
from controlplane.controllers.node_lifecycle import NodeLifecycle
from controlplane.controllers.replica_controller import ReplicaController
from controlplane.controllers.service_accounts import NamespaceContents
from mesh.client.events import EventRecorder
from mesh.client.rest import ApiClient
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)


class ControlLoop(Protocol):
    """One controller."""

    async def run(self) -> None:
        """Work until cancelled."""
        ...


async def run(client: ApiClient, config: ControllersConfig) -> None:
    """Run every controller until cancelled. API outages are waited out; a bug in a loop's frame ends them all."""
    caches = Caches(client)
    recorder = EventRecorder(client, "controllers")
    workers = config.workers
    loops: dict[str, ControlLoop] = {
        "service-accounts": NamespaceContents(client, caches, root_ca_pem=config.root_ca_pem),
        "namespace-deletion": NamespaceDeletion(client, caches),
        "endpoints": EndpointsController(
            client, caches, workers=workers, max_endpoints_per_slice=config.max_endpoints_per_slice
        ),
        "replica-sets": ReplicaController(client, caches, caches.replica_sets, recorder, workers=workers),
        "replication-controllers": ReplicaController(
            client, caches, caches.replication_controllers, recorder, workers=workers
        ),
        "deployments": DeploymentController(client, caches, recorder, workers=workers),
        "node-lifecycle": NodeLifecycle(client, caches, recorder, config),
        "garbage-collector": GarbageCollector(client, caches),
    }
    async with asyncio.TaskGroup() as group:
        spawn(group, caches.run(), name="caches")
        spawn(group, recorder.run(), name="events")
        for name, loop in loops.items():
            spawn(group, loop.run(), name=name)
        for informer in caches.informers():
            await informer.wait_synced()
        logger.info("controllers in step", extra={"controllers": len(loops)})
