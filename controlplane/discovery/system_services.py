"""The Services by which the rest of the cluster finds discovery and the trace store."""

import logging

from controlplane.discovery.config import DiscoveryConfig
from mesh.api.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES, Json, Resource
from mesh.client.errors import AlreadyExistsError, NotFoundError
from mesh.client.rest import ApiClient, PatchType

logger = logging.getLogger(__name__)

NAMESPACE = "meshwork-system"
_Port = tuple[str, int]


async def ensure_system_services(client: ApiClient, config: DiscoveryConfig) -> None:
    """Create or correct the Services mesh-discovery and mesh-traces with their endpoints. Raises ApiError."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await _ensure(client, NAMESPACES, namespace, None)
    discovery = (("grpc-ads", config.ads_port), ("https-monitor", config.monitor_port))
    traces = (("grpc-otlp", config.mesh.traces_port), ("https-query", config.traces_monitor_port))
    await _ensure_service(client, "mesh-discovery", discovery, config.cluster_address)
    await _ensure_service(client, "mesh-traces", traces, config.mesh.traces_address)


async def _ensure_service(client: ApiClient, name: str, ports: tuple[_Port, ...], address: str) -> None:
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"ports": [{"name": n, "port": p, "targetPort": p, "protocol": "TCP"} for n, p in ports]},
    }
    slice_: Json = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-meshwork",
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "discovery.meshwork.dev",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}],
    }
    await _ensure(client, SERVICES, service, NAMESPACE)
    await _ensure(client, ENDPOINT_SLICES, slice_, NAMESPACE)


async def _ensure(client: ApiClient, resource: Resource, obj: Json, namespace: str | None) -> None:
    name = obj["metadata"]["name"]
    try:
        current = await client.get(resource, name, namespace)
    except NotFoundError:
        try:
            await client.create(resource, obj, namespace)
        except AlreadyExistsError:
            logger.debug("created by somebody else meanwhile", extra={"kind": resource.kind, "name": name})
        return
    changes = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    if any(not _contains(current.get(key), value) for key, value in changes.items()):
        await client.patch(resource, name, changes, namespace, patch_type=PatchType.MERGE)


def _contains(have: object, want: object) -> bool:
    """Whether `have` says everything that `want` says; defaults may have been added."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(_contains(have.get(key), value) for key, value in want.items())
    if isinstance(want, list):
        return (
            isinstance(have, list)
            and len(have) == len(want)
            and all(_contains(one, other) for one, other in zip(have, want, strict=True))
        )
    return have == want
