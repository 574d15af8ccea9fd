"""The one entry to a node's network: what the agent calls.

    network = NodeNetwork(config)
    await network.set_up()                                  # bridge, DNS address, base rules; finds earlier pods
    pod = await network.add_pod(uid, ns, name, intercept=True)   # -> PodNetwork(netns_path, address)
    await network.remove_pod(uid)
    await network.run(client)                               # service proxy, DNS, node ports: until cancelled
    await network.close()                                   # threads end; namespaces and rules stay

Namespaces, links and rules outlive the process: an agent that restarts runs `set_up` again and finds its pods.
"""

import asyncio
import functools
import logging
from dataclasses import dataclass
from pathlib import Path

from mesh.api.meta import ObjectReference
from mesh.client.events import EventRecorder
from mesh.client.rest import ApiClient
from mesh.net.port_helper import listen_outside, udp_outside
from mesh.net.tasks import spawn
from node.network.addresses import AddressBook, Allocation
from node.network.config import NetworkConfig
from node.network.dns_forwarder import DnsForwarder
from node.network.dns_server import DnsServer
from node.network.dns_zone import ClusterZone
from node.network.namespaces import NamespaceWorker, PodLink, host_interface_name
from node.network.node_links import set_up_node_links
from node.network.node_ports import NodePorts
from node.network.pod_files import hosts_file, resolv_conf
from node.network.service_proxy import ServiceProxy
from node.network.services import ServiceEntry, ServiceInformers, ServiceTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """One pod's place in the network."""

    netns_path: Path
    """Open it and hand the descriptor to a spawner."""
    address: str
    """IPv4, reachable from every pod and node."""


class NodeNetwork:
    """The network of one node. For the loop's thread; run it inside the node's network namespace."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._addresses = AddressBook(config.pod_cidr, config.state_dir / "addresses.json")
        self._worker = NamespaceWorker()

    @property
    def config(self) -> NetworkConfig:
        return self._config

    async def set_up(self) -> None:
        """Prepare the node. Repeatable. Raises NetworkError."""
        await asyncio.to_thread(self._addresses.load)
        await self._worker.call(self._set_up_links)

    def _set_up_links(self) -> None:
        set_up_node_links(self._worker.node, self._config, self._addresses.gateway)

    def known_pods(self) -> dict[str, PodNetwork]:
        """uid -> network of every pod that has an address here, also from before a restart."""
        return {uid: self._network_of(a) for uid, a in self._addresses.allocations.items()}

    async def add_pod(self, uid: str, namespace: str, name: str, *, intercept: bool) -> PodNetwork:
        """The pod's namespace, joined to the bridge and, with `intercept`, with its TCP led through the sidecar's ports.

        Calling it again for the same uid finds what is there, and makes what is missing with the same address.
        About 10 ms. Raises NetworkError (nothing half-made stays), AddressesExhaustedError.
        """
        allocation = self._addresses.allocate(uid, namespace, name, intercept=intercept)
        await self._worker.call(self._worker.join_pod, self._link_of(allocation))
        return self._network_of(allocation)

    async def remove_pod(self, uid: str) -> None:
        """Take the pod's namespace away and free its address. Unknown pods are ignored. Raises NetworkError."""
        if uid not in self._addresses.allocations:
            return
        await self._worker.call(self._worker.remove_pod, self._netns_path(uid), host_interface_name(uid))
        self._addresses.release(uid)

    async def run(self, client: ApiClient) -> None:
        """Service proxy, cluster DNS and, on the node that serves them, node ports; until cancelled.

        `set_up` must have been called. Raises NetworkError when the DNS address can't be served.
        """
        table = ServiceTable()
        informers = ServiceInformers(client, table)
        async with asyncio.TaskGroup() as tasks:
            spawn(tasks, informers.services.run(), name="services informer")
            spawn(tasks, informers.slices.run(), name="endpoint slices informer")
            # DNS answers SERVFAIL rather than NXDOMAIN by not being there before the Services are known.
            await informers.wait_synced()
            spawn(tasks, ServiceProxy(self._config, table).run(), name="service proxy")
            spawn(tasks, self._dns_server(table).run(self._config.dns_address), name="cluster DNS")
            if self._config.serves_node_ports and self._config.ports_socket is not None:
                self._serve_node_ports(tasks, client, table, self._config.ports_socket)

    def _serve_node_ports(self, tasks: asyncio.TaskGroup, client: ApiClient, table: ServiceTable, helper: Path) -> None:
        recorder = EventRecorder(client, "node-ports", host=self._config.node_name)

        def tell_about(entry: ServiceEntry, message: str) -> None:
            service = ObjectReference(
                api_version="v1", kind="Service", namespace=entry.namespace, name=entry.name, uid=entry.uid
            )
            recorder.event(service, "Warning", "NodePortNotOpen", message)

        ports = NodePorts(table, functools.partial(listen_outside, helper), tell_about=tell_about)
        spawn(tasks, recorder.run(), name="node port events")
        spawn(tasks, ports.run(), name="node ports")

    def _dns_server(self, table: ServiceTable) -> DnsServer:
        config = self._config
        zone = ClusterZone(table, domain=config.cluster_domain, service_cidr=config.service_cidr)
        opener = functools.partial(udp_outside, config.ports_socket) if config.ports_socket is not None else None
        return DnsServer(zone, DnsForwarder(opener, config.upstream_dns), self._namespace_at)

    def _namespace_at(self, address: str) -> str:
        allocation = self._addresses.at(address)
        return allocation.namespace if allocation is not None else "default"

    def resolv_conf(self, namespace: str) -> str:
        """Contents of /etc/resolv.conf of a pod in `namespace`."""
        return resolv_conf(namespace, dns_address=self._config.dns_address, cluster_domain=self._config.cluster_domain)

    def hosts_file(self, hostname: str, address: str) -> str:
        """Contents of /etc/hosts of a pod."""
        return hosts_file(hostname, address)

    async def close(self) -> None:
        """End this object's thread. Namespaces, links and rules stay."""
        await self._worker.close()

    def _netns_path(self, uid: str) -> Path:
        return self._config.netns_dir / f"pod-{uid}"

    def _network_of(self, allocation: Allocation) -> PodNetwork:
        return PodNetwork(self._netns_path(allocation.uid), allocation.address)

    def _link_of(self, allocation: Allocation) -> PodLink:
        return PodLink(
            netns_path=self._netns_path(allocation.uid),
            host_interface=host_interface_name(allocation.uid),
            address=allocation.address,
            gateway=self._addresses.gateway,
            bridge=self._config.bridge,
            intercept=allocation.intercept,
        )
