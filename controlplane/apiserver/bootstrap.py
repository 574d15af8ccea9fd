"""Objects every cluster has before anyone asks: the system's namespaces and the service `default/kubernetes`."""

import ipaddress
from uuid import uuid4

from controlplane.apiserver.admission import Claim
from controlplane.apiserver.allocation import address_key
from controlplane.apiserver.config import ApiServerConfig
from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.objects import is_same, parse
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.storage import ObjectStorage
from controlplane.apiserver.strategy import prepare_create, timestamp
from mesh.api.resources import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICES, Json, Resource
from mesh.clock import Clock

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "meshwork-system")
_SERVICE = "kubernetes"
_NO_MIRROR = "endpointslice.kubernetes.io/skip-mirror"


class Bootstrap:
    """Creates what is missing and corrects the address of `default/kubernetes`."""

    def __init__(
        self, storage: ObjectStorage, kinds: KindRegistry, rules: Rules, clock: Clock, config: ApiServerConfig
    ) -> None:
        self._storage = storage
        self._kinds = kinds
        self._rules = rules
        self._clock = clock
        self._config = config

    async def run(self, port: int) -> None:
        """Idempotent. `port` is where the server listens inside the cluster."""
        for name in SYSTEM_NAMESPACES:
            await self._ensure(NAMESPACES, {"metadata": {"name": name}})
        address = str(ipaddress.ip_network(self._config.service_cidr)[1])
        service = _service(address, port)
        await self._ensure(SERVICES, service, Claim(address_key(address), f"default/{_SERVICE}".encode()))
        await self._ensure(ENDPOINTS, _endpoints(self._config.cluster_address, port), corrects=True)
        await self._ensure(ENDPOINT_SLICES, _slice(self._config.cluster_address, port), corrects=True)

    async def _ensure(self, resource: Resource, obj: Json, *claims: Claim, corrects: bool = False) -> None:
        kind = self._kinds.preferred(resource)
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        metadata = obj["metadata"]
        read = await self._storage.read(kind, metadata.get("namespace", ""), metadata["name"])
        if read is None:
            prepare_create(kind, obj, uid=str(uuid4()), now=timestamp(self._clock.wall()))
            await self._storage.create(kind, self._rules.defaulted(kind, obj), claims)
        elif corrects:
            old = parse(kind.resource, read)
            new = self._rules.defaulted(kind, {**obj, "metadata": {**old["metadata"], **metadata}})
            if not is_same(new, old):
                await self._storage.replace(kind, new, read)


def _service(address: str, port: int) -> Json:
    return {
        "metadata": {
            "name": _SERVICE,
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4" if ipaddress.ip_address(address).version == 4 else "IPv6"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    }


def _endpoints(address: str, port: int) -> Json:
    return {
        "metadata": {"name": _SERVICE, "namespace": "default", "labels": {_NO_MIRROR: "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    }


def _slice(address: str, port: int) -> Json:
    return {
        "metadata": {
            "name": _SERVICE,
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": _SERVICE,
                "endpointslice.kubernetes.io/managed-by": "apiserver.meshwork.dev",
            },
        },
        "addressType": "IPv4" if ipaddress.ip_address(address).version == 4 else "IPv6",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True, "serving": True, "terminating": False}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
