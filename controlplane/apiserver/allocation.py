"""Cluster IPs and node ports of Services: each held by one Service, as a key taken in the same transaction.

The keys are the whole state: a restart forgets nothing, two servers cannot hand out the same one, and deleting the
Service gives them back in the transaction that deletes it.
"""

import ipaddress
import random
from collections.abc import Callable, Iterable

from controlplane.apiserver import errors
from controlplane.apiserver.admission import AdmissionRequest, Claim, Operation
from controlplane.apiserver.objects import REGISTRY, prefix_end
from controlplane.store.protocol import Store
from mesh.api.resources import SERVICES, Json

ADDRESS_PREFIX = f"{REGISTRY}ranges/serviceips/"
PORT_PREFIX = f"{REGISTRY}ranges/servicenodeports/"
HEADLESS = "None"
RANDOM_TRIES = 32
_EXTERNAL_TYPES = frozenset({"NodePort", "LoadBalancer"})


def address_key(address: str) -> bytes:
    """The key that holds a cluster IP."""
    return f"{ADDRESS_PREFIX}{address}".encode()


def port_key(port: int) -> bytes:
    """The key that holds a node port."""
    return f"{PORT_PREFIX}{port}".encode()


def held_keys(service: Json) -> set[bytes]:
    """The keys a stored Service holds."""
    spec = service.get("spec") or {}
    addresses = {address_key(a) for a in _addresses(spec)}
    return addresses | {port_key(port) for port in _node_ports(spec)}


def _addresses(spec: Json) -> Iterable[str]:
    address = spec.get("clusterIP") or ""
    return () if address in ("", HEADLESS) else (address,)


def _node_ports(spec: Json) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


class ServiceAllocation:
    """The plugin."""

    def __init__(self, store: Store, service_cidr: str, node_ports: tuple[int, int], rng: random.Random) -> None:
        self._store = store
        self._network = ipaddress.ip_network(service_cidr)
        self._first_port, self._last_port = node_ports
        self._rng = rng

    async def admit(self, request: AdmissionRequest) -> Json:
        service = request.object
        if request.resource.key != SERVICES.key or request.subresource:
            return service
        if request.operation is Operation.DELETE:
            request.releases.extend(held_keys(service))
            return service
        old = request.old_object
        if old is not None:
            _carry_over(service, old)
        holds = held_keys(old) if old is not None else set()
        owner = f"{request.namespace}/{request.name}".encode()
        await self._address(request, service.setdefault("spec", {}), holds)
        await self._ports(request, service["spec"], holds)
        wanted = held_keys(service)
        request.claims.extend(Claim(key, owner) for key in sorted(wanted - holds))
        request.releases.extend(sorted(holds - wanted))
        return service

    async def _address(self, request: AdmissionRequest, spec: Json, holds: set[bytes]) -> None:
        if spec.get("type") == "ExternalName":
            for name in ("clusterIP", "clusterIPs"):
                spec.pop(name, None)
            return
        address = spec.get("clusterIP") or ""
        if not address:
            address = await self._free_address(request)
        elif address != HEADLESS and address_key(address) not in holds:
            await self._check_address(request, address)
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address]
        spec.setdefault("ipFamilies", ["IPv4" if self._network.version == 4 else "IPv6"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    async def _check_address(self, request: AdmissionRequest, address: str) -> None:
        """A cluster IP somebody asks for by name."""
        try:
            is_inside = ipaddress.ip_address(address) in self._network
        except ValueError:
            raise _refuse(request, "spec.clusterIP", address, "is not an IP address") from None
        if not is_inside:
            raise _refuse(request, "spec.clusterIP", address, f"is not in the service range {self._network}")
        if (holder := await self._store.get(address_key(address))) is not None:
            raise _refuse(
                request, "spec.clusterIP", address, f"is already allocated to service {holder.value.decode()}"
            )

    async def _free_address(self, request: AdmissionRequest) -> str:
        # The network's own, the broadcast address and the first (default/kubernetes) are not for handing out; nor are
        # the next 14, where a person finds fixed ones such as DNS. Source: Kubernetes' KEP-3070 (lower band).
        first, last = 16, self._network.num_addresses - 2

        def key_of(offset: int) -> bytes:
            return address_key(str(self._network[offset]))

        offset = await self._free(first, last, key_of, ADDRESS_PREFIX)
        if offset is None:
            raise errors.internal(f"no free cluster IP in {self._network} for {request.name}; delete unused services")
        return str(self._network[offset])

    async def _ports(self, request: AdmissionRequest, spec: Json, holds: set[bytes]) -> None:
        ports = spec.get("ports") or ()
        if spec.get("type") not in _EXTERNAL_TYPES:
            for port in ports:
                port.pop("nodePort", None)
            return
        taken: set[int] = _node_ports(spec)
        for index, port in enumerate(ports):
            number = port.get("nodePort")
            if not number:
                port["nodePort"] = await self._free_port(request, taken)
                taken.add(port["nodePort"])
            elif port_key(number) not in holds:
                await self._check_port(request, f"spec.ports[{index}].nodePort", number)

    async def _check_port(self, request: AdmissionRequest, field: str, port: int) -> None:
        if not self._first_port <= port <= self._last_port:
            raise _refuse(
                request, field, port, f"is not in the range of valid ports {self._first_port}-{self._last_port}"
            )
        if (holder := await self._store.get(port_key(port))) is not None:
            raise _refuse(request, field, port, f"is already allocated to service {holder.value.decode()}")

    async def _free_port(self, request: AdmissionRequest, taken: set[int]) -> int:
        def key_of(port: int) -> bytes:
            return port_key(port)

        port = await self._free(self._first_port, self._last_port, key_of, PORT_PREFIX, taken)
        if port is None:
            raise errors.internal(f"no free node port for {request.name}; delete unused services")
        return port

    async def _free(
        self, first: int, last: int, key_of: Callable[[int], bytes], prefix: str, taken: Iterable[int] = ()
    ) -> int | None:
        """A free number in [first, last]: by chance while the range is sparse, else the lowest."""
        used_here = set(taken)
        for _try in range(RANDOM_TRIES):
            number = self._rng.randint(first, last)
            if number not in used_here and await self._store.get(key_of(number)) is None:
                return number
        start = prefix.encode()
        used = {kv.key for kv in (await self._store.range(start, prefix_end(start), keys_only=True)).kvs}
        for number in range(first, last + 1):
            if number not in used_here and key_of(number) not in used:
                return number
        return None


def _carry_over(service: Json, old: Json) -> None:
    """An update that doesn't mention what was allocated keeps it. Source: Kubernetes' Service REST storage."""
    spec, before = service.setdefault("spec", {}), old.get("spec") or {}
    if spec.get("type") == "ExternalName" or before.get("type") == "ExternalName":
        return
    if not spec.get("clusterIP"):
        for name in ("clusterIP", "clusterIPs"):
            if name in before:
                spec[name] = before[name]
    allocated = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    if spec.get("type") in _EXTERNAL_TYPES:
        for port in spec.get("ports") or ():
            kept = allocated.get((port.get("protocol"), port.get("port")))
            if not port.get("nodePort") and kept:
                port["nodePort"] = kept


def _refuse(request: AdmissionRequest, field: str, value: object, why: str) -> errors.ApiStatusError:
    shown = f'"{value}"' if isinstance(value, str) else value
    return errors.invalid(
        request.resource, request.name, [errors.cause(field, f"Invalid value: {shown}: provided value {why}")]
    )
