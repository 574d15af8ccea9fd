"""The node's picture of Services and their endpoints, joined: what the service proxy, DNS and the node ports read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mesh.api.core import Service, ServicePort
from mesh.api.discovery import Endpoint, EndpointSlice
from mesh.api.resources import ENDPOINT_SLICES, SERVICES
from mesh.client.informer import Change, Informer
from mesh.client.rest import ApiClient

ServiceKey = tuple[str, str]
"""(namespace, name)"""
V = TypeVar("V")


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where one endpoint listens for one service port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortEntry:
    """One port of a Service with what stands behind it."""

    name: str
    protocol: str
    """TCP or UDP, as in the API."""
    port: int
    node_port: int
    """0 = none."""
    backends: tuple[Backend, ...]
    """Sorted, without duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry:
    """One Service as the network sees it."""

    namespace: str
    name: str
    uid: str
    cluster_ip: str
    """"" for headless and ExternalName Services."""
    is_headless: bool
    external_name: str
    has_client_affinity: bool
    ports: tuple[PortEntry, ...]
    hosts: Mapping[str, str]
    """Address -> hostname ("" = none) of every endpoint in use."""


def entry_of(service: Service, slices: Iterable[EndpointSlice]) -> ServiceEntry:
    """Join a Service with its EndpointSlices. Pure.

    Ready endpoints are used; when there is none, those that still serve while they terminate (as kube-proxy does).
    """
    spec = service.spec
    chosen = _endpoints_in_use([s for s in slices if s.address_type == "IPv4"])
    is_external = spec.type == "ExternalName"
    return ServiceEntry(
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        uid=service.metadata.uid,
        cluster_ip="" if is_external or spec.cluster_ip in ("", "None") else spec.cluster_ip,
        is_headless=spec.cluster_ip == "None" and not is_external,
        external_name=spec.external_name if is_external else "",
        has_client_affinity=spec.session_affinity == "ClientIP",
        ports=tuple(_port_entry(port, chosen) for port in spec.ports),
        hosts={address: endpoint.hostname for _, endpoint in chosen for address in endpoint.addresses},
    )


def _endpoints_in_use(slices: list[EndpointSlice]) -> list[tuple[EndpointSlice, Endpoint]]:
    every = [(one, endpoint) for one in slices for endpoint in one.endpoints]
    ready = [pair for pair in every if pair[1].is_ready]
    return ready or [pair for pair in every if pair[1].is_terminating and pair[1].conditions.serving is not False]


def _port_entry(port: ServicePort, chosen: list[tuple[EndpointSlice, Endpoint]]) -> PortEntry:
    protocol = port.protocol or "TCP"
    backends = {
        Backend(address, listed.port)
        for one, endpoint in chosen
        for listed in one.ports
        if listed.name == port.name and (listed.protocol or "TCP") == protocol
        for address in endpoint.addresses
    }
    return PortEntry(
        name=port.name, protocol=protocol, port=port.port, node_port=port.node_port, backends=tuple(sorted(backends))
    )


class ServiceTable:
    """Every Service of the cluster, joined. For the loop's thread; entries are immutable."""

    def __init__(self) -> None:
        self._services: dict[ServiceKey, Service] = {}
        self._slices: dict[ServiceKey, dict[str, EndpointSlice]] = {}
        self._entries: dict[ServiceKey, ServiceEntry] = {}
        self._owners: dict[str, set[ServiceKey]] = {}
        self._listeners: list[Callable[[ServiceKey], None]] = []

    def subscribe(self, on_change: Callable[[ServiceKey], None]) -> None:
        """Call `on_change` after each change of a Service's entry. It must not block."""
        self._listeners.append(on_change)

    def get(self, namespace: str, name: str) -> ServiceEntry | None:
        """One Service."""
        return self._entries.get((namespace, name))

    def all(self) -> Iterable[ServiceEntry]:
        """Every Service, in no order."""
        return self._entries.values()

    def with_address(self, address: str) -> tuple[ServiceEntry, ...]:
        """The Services that have `address` as ClusterIP or endpoint."""
        return tuple(self._entries[key] for key in sorted(self._owners.get(address, ())))

    def has_namespace(self, namespace: str) -> bool:
        """Some Service is in `namespace`. Costs a pass over all."""
        return any(key[0] == namespace for key in self._entries)

    def on_service(self, change: Change[Service]) -> None:
        """An informer's change."""
        metadata = change.object.metadata
        _put(self._services, (metadata.namespace, metadata.name), change.new)
        self._rejoin((metadata.namespace, metadata.name))

    def on_slice(self, change: Change[EndpointSlice]) -> None:
        """An informer's change."""
        for view in (change.old, change.new):
            if view is not None and (view is change.new or change.new is None or _moved(change)):
                key = (view.metadata.namespace, view.service_name)
                _put(self._slices.setdefault(key, {}), view.metadata.name, view if view is change.new else None)
                if not self._slices[key]:
                    del self._slices[key]
                self._rejoin(key)

    def _rejoin(self, key: ServiceKey) -> None:
        before = self._entries.get(key)
        service = self._services.get(key)
        after = entry_of(service, self._slices.get(key, {}).values()) if service is not None else None
        if after == before:
            return
        _put(self._entries, key, after)
        self._move_owner(key, before, after)
        for listener in self._listeners:
            listener(key)

    def _move_owner(self, key: ServiceKey, before: ServiceEntry | None, after: ServiceEntry | None) -> None:
        for address in _addresses(before):
            self._owners[address].discard(key)
            if not self._owners[address]:
                del self._owners[address]
        for address in _addresses(after):
            self._owners.setdefault(address, set()).add(key)


def _moved(change: Change[EndpointSlice]) -> bool:
    return change.old is not None and change.new is not None and change.old.service_name != change.new.service_name


def _addresses(entry: ServiceEntry | None) -> set[str]:
    return set() if entry is None else {*entry.hosts, *([entry.cluster_ip] if entry.cluster_ip else [])}


K = TypeVar("K")


def _put(table: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


class ServiceInformers:
    """Feeds a ServiceTable from the API."""

    def __init__(self, client: ApiClient, table: ServiceTable) -> None:
        self.services: Informer[Service] = Informer(client, SERVICES, Service.of)
        self.slices: Informer[EndpointSlice] = Informer(client, ENDPOINT_SLICES, EndpointSlice.of)
        self.services.add_handler(table.on_service)
        self.slices.add_handler(table.on_slice)

    async def wait_synced(self) -> None:
        """Until the table holds what the API held a moment ago."""
        await self.services.wait_synced()
        await self.slices.wait_synced()
