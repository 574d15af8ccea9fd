"""EndpointSlices and Endpoints of Services with a selector, and slices that mirror Endpoints made by hand."""

import logging
from collections.abc import Mapping, Sequence

from controlplane.controllers.caches import BY_NAMESPACE, BY_SERVICE, Caches, Stored
from controlplane.controllers.endpoints import PodEndpoint, PortKey, endpoints_of, legacy_subsets
from controlplane.controllers.slices import CONTROLLER, HEADLESS, MANAGED_BY, MIRROR, SliceOwner, SlicePlan, plan_slices
from mesh.api.core import Endpoints, Service
from mesh.api.discovery import EndpointSlice
from mesh.api.meta import ObjectView
from mesh.api.pod import Pod
from mesh.api.resources import ENDPOINT_SLICES, ENDPOINTS, Json
from mesh.api.selectors import label_map_selector
from mesh.client.controller import Controller
from mesh.client.errors import AlreadyExistsError, ConflictError, NotFoundError
from mesh.client.informer import Change
from mesh.client.rest import ApiClient

logger = logging.getLogger(__name__)

_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_ENDPOINTS_MANAGED_BY = "endpoints.kubernetes.io/managed-by"
_MADE_BY_US = "endpoint-controller"


class EndpointsController:
    """The control loop. A key is a Service's `namespace/name`. Slices are written first: proxies read those."""

    def __init__(
        self, client: ApiClient, caches: Caches, *, workers: int = 4, max_endpoints_per_slice: int = 100
    ) -> None:
        self._client = client
        self._caches = caches
        self._max_per_slice = max_endpoints_per_slice
        self._controller: Controller[str] = Controller("endpoints", self._reconcile, workers=workers)
        caches.services.add_handler(lambda change: self._controller.queue.add(change.object.key))
        caches.endpoints.add_handler(lambda change: self._controller.queue.add(change.object.view.key))
        caches.endpoint_slices.add_handler(self._on_slice)
        caches.pods.add_handler(self._on_pod)

    async def run(self) -> None:
        """Work until cancelled."""
        caches = self._caches
        await self._controller.run(
            caches.services.wait_synced,
            caches.pods.wait_synced,
            caches.endpoint_slices.wait_synced,
            caches.endpoints.wait_synced,
        )

    # -- what to look at

    def _on_slice(self, change: Change[Stored[EndpointSlice]]) -> None:
        view = change.object.view
        if view.service_name and view.metadata.labels.get(MANAGED_BY) in (CONTROLLER, MIRROR):
            self._controller.queue.add(f"{view.metadata.namespace}/{view.service_name}")

    def _on_pod(self, change: Change[Pod]) -> None:
        """Queue the Services that select the pod, or did so, when something they publish has changed."""
        old, new = change.old, change.new
        if old is not None and new is not None and _published(old) == _published(new):
            return
        for service in self._caches.services.by_index(BY_NAMESPACE, change.object.metadata.namespace):
            selector = label_map_selector(service.spec.selector)
            if any(pod is not None and selector.matches(pod.metadata.labels) for pod in (old, new)):
                self._controller.queue.add(service.key)

    # -- what to do

    async def _reconcile(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        service = self._caches.services.get(namespace, name)
        if service is None:
            await self._clean_up(key)
        elif service.spec.type == "ExternalName" or service.metadata.is_terminating:
            return
        elif service.spec.selector:
            await self._follow_selector(service)
        else:
            await self._mirror(service)

    async def _follow_selector(self, service: Service) -> None:
        selector = label_map_selector(service.spec.selector)
        pods = self._caches.pods.by_index(BY_NAMESPACE, service.metadata.namespace)
        groups = endpoints_of(service, (pod for pod in pods if selector.matches(pod.metadata.labels)))
        labels = dict(service.metadata.labels)
        if service.is_headless:
            labels[HEADLESS] = ""
        owner = _owner(service, "v1", "Service", CONTROLLER, labels)
        wanted = {ports: [member.to_json() for member in members] for ports, members in groups.items()}
        await self._write_slices(service, owner, wanted)
        await self._write_endpoints(service, groups)

    async def _write_slices(
        self, service: Service, owner: SliceOwner, wanted: Mapping[PortKey, Sequence[Json]]
    ) -> None:
        existing = self._slices(service.key, owner.managed_by)
        await self._apply(plan_slices(owner, wanted, existing, self._max_per_slice), service)
        other = MIRROR if owner.managed_by == CONTROLLER else CONTROLLER
        for item in self._slices(
            service.key, other
        ):  # the selector was added or removed: the other manager's slices go
            await self._delete_slice(item)

    def _slices(self, key: str, managed_by: str) -> list[Json]:
        items = self._caches.endpoint_slices.by_index(BY_SERVICE, key)
        return [item.json for item in items if item.view.metadata.labels.get(MANAGED_BY) == managed_by]

    async def _apply(self, decision: SlicePlan, service: Service) -> None:
        for obj in decision.create:
            try:
                await self._client.create(ENDPOINT_SLICES, obj, service.metadata.namespace)
            except AlreadyExistsError as exc:
                raise ConflictError(exc.message, status=409, reason="Conflict") from exc
        for obj in decision.update:
            await self._client.update(ENDPOINT_SLICES, obj)
        for obj in decision.delete:
            await self._delete_slice(obj)

    async def _delete_slice(self, obj: Json) -> None:
        meta = obj["metadata"]
        try:
            await self._client.delete(ENDPOINT_SLICES, meta["name"], meta["namespace"], uid=meta["uid"])
        except NotFoundError:
            return

    async def _write_endpoints(self, service: Service, groups: Mapping[PortKey, Sequence[PodEndpoint]]) -> None:
        meta = service.metadata
        subsets = legacy_subsets(groups)
        labels = {**meta.labels, _ENDPOINTS_MANAGED_BY: _MADE_BY_US}
        if service.is_headless:
            labels[HEADLESS] = ""
        existing = self._caches.endpoints.get(meta.namespace, meta.name)
        if existing is None:
            obj = {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": meta.name, "namespace": meta.namespace, "labels": labels},
                "subsets": subsets,
            }
            await self._client.create(ENDPOINTS, obj, meta.namespace)
        elif (existing.json.get("subsets") or []) != subsets or existing.view.metadata.labels != labels:
            before = existing.json["metadata"]
            obj = {**existing.json, "metadata": {**before, "labels": labels}, "subsets": subsets}
            await self._client.update(ENDPOINTS, obj)

    async def _mirror(self, service: Service) -> None:
        """A Service without selector: whoever made its Endpoints gets slices made from them, unless slices exist already."""
        source = self._caches.endpoints.get(service.metadata.namespace, service.metadata.name)
        if source is None or source.view.metadata.labels.get(_SKIP_MIRROR) == "true":
            return
        slices = self._caches.endpoint_slices.by_index(BY_SERVICE, service.key)
        if any(item.view.metadata.labels.get(MANAGED_BY) not in (MIRROR, CONTROLLER) for item in slices):
            return
        labels = {k: v for k, v in source.view.metadata.labels.items() if k != _ENDPOINTS_MANAGED_BY}
        owner = _owner(source.view, "v1", "Endpoints", MIRROR, labels)
        await self._write_slices(service, owner, mirrored(source.view))

    async def _clean_up(self, key: str) -> None:
        """The Service is gone: so are the Endpoints we made. Slices go by their ownerReference, or here when that is missing."""
        namespace, _, name = key.partition("/")
        existing = self._caches.endpoints.get(namespace, name)
        if existing is not None and existing.view.metadata.labels.get(_ENDPOINTS_MANAGED_BY) == _MADE_BY_US:
            try:
                await self._client.delete(ENDPOINTS, name, namespace, uid=existing.view.metadata.uid)
            except NotFoundError:
                return
        for managed_by in (CONTROLLER, MIRROR):
            for item in self._slices(key, managed_by):
                await self._delete_slice(item)


def mirrored(source: Endpoints) -> dict[PortKey, list[Json]]:
    """The endpoints of a hand-made Endpoints object as EndpointSlice entries. Pure."""
    result: dict[PortKey, list[Json]] = {}
    for subset in source.subsets:
        ports = tuple(sorted((p.name, p.protocol, p.port, p.app_protocol) for p in subset.ports))
        members = result.setdefault(ports, [])
        for is_ready, addresses in ((True, subset.addresses), (False, subset.not_ready_addresses)):
            for address in addresses:
                entry: Json = {
                    "addresses": [address.ip],
                    "conditions": {"ready": is_ready, "serving": is_ready, "terminating": False},
                }
                if address.node_name:
                    entry["nodeName"] = address.node_name
                if address.hostname:
                    entry["hostname"] = address.hostname
                members.append(entry)
    return result


def _published(pod: Pod) -> tuple[object, ...]:
    """What of a pod shows in endpoints."""
    return (
        pod.metadata.uid,
        pod.metadata.labels,
        pod.metadata.is_terminating,
        pod.status.pod_ip,
        pod.is_ready,
        pod.is_finished,
        pod.spec.node_name,
    )


def _owner(view: ObjectView, api_version: str, kind: str, managed_by: str, labels: Mapping[str, str]) -> SliceOwner:
    meta = view.metadata
    reference = {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return SliceOwner(
        name=meta.name, namespace=meta.namespace, reference=reference, managed_by=managed_by, labels=labels
    )
