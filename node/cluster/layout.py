"""Names, addresses and files of a cluster, derived from its configuration. Pure.

Source: docs/contracts.md, "Processes of `mesh up`" and "HOME".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.cluster.config import ClusterConfig

BRIDGE = "mesh0"
CLUSTER_ADDRESS = "172.30.0.1"
PREFIX_LENGTH = 24
SERVICE_CIDR = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
DISCOVERY_PORT = 15012
NETNS_DIR = Path("/run/netns")
RUN_DIR = Path("/run/meshwork")
"""On the cluster's own tmpfs: sockets with short names that nobody outside sees."""
LEASE_RENEW_S = 2.0


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """One node: its number (from 1), name and addresses."""

    index: int

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def address(self) -> str:
        return f"172.30.0.{10 + self.index}"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.index}.0/24"

    @property
    def netns(self) -> Path:
        return NETNS_DIR / self.name

    @property
    def run_dir(self) -> Path:
        return RUN_DIR / self.name


def node_layouts(config: ClusterConfig) -> tuple[NodeLayout, ...]:
    """The cluster's nodes, node-1 first."""
    return tuple(NodeLayout(index) for index in range(1, config.nodes + 1))


def cluster_link_commands(nodes: tuple[NodeLayout, ...]) -> str:
    """`ip -batch` text for the cluster's own namespace; the nodes' namespaces must exist."""
    lines = [
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {CLUSTER_ADDRESS}/{PREFIX_LENGTH} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    for node in nodes:
        lines += [
            f"link add {node.name} type veth peer name eth0 netns {node.name}",
            f"link set {node.name} master {BRIDGE} up",
            f"route add {node.pod_cidr} via {node.address}",
        ]
    return "\n".join(lines) + "\n"


def node_link_commands(node: NodeLayout, nodes: tuple[NodeLayout, ...]) -> str:
    """`ip -batch` text for the namespace of `node`: its address, and the way to every other node's pods."""
    lines = [
        "link set lo up",
        f"addr add {node.address}/{PREFIX_LENGTH} dev eth0",
        "link set eth0 up",
        f"route add default via {CLUSTER_ADDRESS}",
    ]
    lines += [f"route add {other.pod_cidr} via {other.address}" for other in nodes if other != node]
    return "\n".join(lines) + "\n"


def controlplane_config(config: ClusterConfig, *, has_api_fd: bool) -> dict[str, Any]:
    """controlplane.json. The API's socket is handed over as descriptor 3."""
    return {
        "home": str(config.home),
        "api_fd": 3 if has_api_fd else None,
        "api_addresses": [f"{CLUSTER_ADDRESS}:{API_PORT}"],
        "external_server": config.external_server,
        "cluster_address": CLUSTER_ADDRESS,
        "nodes": [{"name": node.name, "address": node.address} for node in node_layouts(config)],
        "service_cidr": SERVICE_CIDR,
        "cluster_domain": CLUSTER_DOMAIN,
        "trace_sampling_percent": config.trace_sampling_percent,
        "components": list(config.components),
    }


def node_config(config: ClusterConfig, node: NodeLayout) -> dict[str, Any]:
    """NODE.json."""
    home = config.home
    return {
        "name": node.name,
        "address": node.address,
        "pod_cidr": node.pod_cidr,
        "state_dir": str(home / "nodes" / node.name),
        "run_dir": str(node.run_dir),
        "kubeconfig": str(home / "run" / f"{node.name}.kubeconfig"),
        "exec_socket": str(node.run_dir / "exec.sock"),
        "sidecar_socket": str(node.run_dir / "sidecar.sock"),
        "ca_file": str(home / "pki" / "ca.crt"),
        "service_cidr": SERVICE_CIDR,
        "dns_address": DNS_ADDRESS,
        "cluster_domain": CLUSTER_DOMAIN,
        "ports_socket": str(home / "run" / "ports.sock"),
        "serves_node_ports": node.index == 1,
        "upstream_dns": list(config.upstream_dns),
        "discovery_address": f"{CLUSTER_ADDRESS}:{DISCOVERY_PORT}",
        "lease_renew_s": LEASE_RENEW_S,
    }
