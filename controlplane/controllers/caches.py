"""The informers all control loops share: each collection is watched once per process."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mesh.api.apps import Deployment, ReplicaSet
from mesh.api.coordination import Lease
from mesh.api.core import ConfigMap, Endpoints, Namespace, Node, ReplicationController, Service, ServiceAccount
from mesh.api.discovery import EndpointSlice
from mesh.api.meta import ObjectView
from mesh.api.pod import Pod
from mesh.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
)
from mesh.client.informer import Informer
from mesh.client.rest import ApiClient
from mesh.net.tasks import spawn

V = TypeVar("V", bound=ObjectView)

BY_OWNER = "owner"
"""Index: uid of the controller reference."""
BY_NODE = "node"
"""Index of pods: spec.nodeName."""
BY_NAMESPACE = "namespace"
BY_SERVICE = "service"
"""Index of EndpointSlices: `namespace/service`."""
NODE_LEASE_NAMESPACE = "kube-node-lease"


@dataclass(frozen=True, slots=True)
class Stored(Generic[V]):
    """An object as a typed view and as the JSON it came from, so that what the view does not know can be written on."""

    view: V
    json: Json


def stored(view: Callable[[Json], V]) -> Callable[[Json], Stored[V]]:
    """The decoder of an informer of `Stored`."""
    return lambda obj: Stored(view(obj), obj)


class Caches:
    """The shared informers. `run` owns their tasks."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self.pods = Informer(client, PODS, Pod.of)
        self.replica_sets = Informer(client, REPLICA_SETS, stored(ReplicaSet.of))
        self.replication_controllers = Informer(client, REPLICATION_CONTROLLERS, stored(ReplicationController.of))
        self.deployments = Informer(client, DEPLOYMENTS, stored(Deployment.of))
        self.services = Informer(client, SERVICES, Service.of)
        self.endpoints = Informer(client, ENDPOINTS, stored(Endpoints.of))
        self.endpoint_slices = Informer(client, ENDPOINT_SLICES, stored(EndpointSlice.of))
        self.nodes = Informer(client, NODES, Node.of)
        self.leases = Informer(client, LEASES, Lease.of, namespace=NODE_LEASE_NAMESPACE)
        self.namespaces = Informer(client, NAMESPACES, Namespace.of)
        self.service_accounts = Informer(client, SERVICE_ACCOUNTS, ServiceAccount.of)
        self.config_maps = Informer(client, CONFIG_MAPS, ConfigMap.of)
        self.custom_resource_definitions = Informer(client, CUSTOM_RESOURCE_DEFINITIONS, _same)
        self._add_indexes()

    def _add_indexes(self) -> None:
        self.pods.add_index(BY_OWNER, lambda pod: _owner_uids(pod))
        self.pods.add_index(BY_NODE, lambda pod: (pod.spec.node_name,))
        self.pods.add_index(BY_NAMESPACE, lambda pod: (pod.metadata.namespace,))
        self.replica_sets.add_index(BY_OWNER, lambda item: _owner_uids(item.view))
        self.replica_sets.add_index(BY_NAMESPACE, lambda item: (item.view.metadata.namespace,))
        self.services.add_index(BY_NAMESPACE, lambda service: (service.metadata.namespace,))
        self.endpoint_slices.add_index(
            BY_SERVICE, lambda item: (f"{item.view.metadata.namespace}/{item.view.service_name}",)
        )

    def informers(self) -> tuple[Informer[Any], ...]:
        """Every shared informer."""
        return tuple(value for value in vars(self).values() if isinstance(value, Informer))

    def watched(self) -> dict[tuple[str, str], Informer[Any]]:
        """The informers that hold a whole collection (all namespaces), by the resource's key."""
        return {informer.resource.key: informer for informer in self.informers() if informer is not self.leases}

    def object_informer(self, resource: Resource) -> Informer[ObjectView]:
        """A new informer of a resource's metadata only, for kinds that no controller reads. The caller runs it."""
        return Informer(self._client, resource, ObjectView.of)

    async def run(self) -> None:
        """Keep every cache fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self.informers():
                spawn(group, informer.run(), name=f"informer-{informer.resource.plural}")


def metadata_view(value: Any) -> ObjectView:
    """The typed view inside a cached value of any informer of this process."""
    if isinstance(value, Stored):
        view: ObjectView = value.view
        return view
    if isinstance(value, ObjectView):
        return value
    return ObjectView.of(value)


def _owner_uids(view: ObjectView) -> tuple[str, ...]:
    controller = view.metadata.controller
    return (controller.uid,) if controller is not None else ("",)


def _same(obj: Json) -> Json:
    return obj
