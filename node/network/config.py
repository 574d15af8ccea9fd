"""The configuration of one node's network."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """One node's network, as the agent hands it in (from NODE.json, see docs/contracts.md)."""

    node_name: str
    pod_cidr: str
    """IPv4 range of this node's pods, e.g. `10.244.1.0/24`. The first address is the bridge's."""
    state_dir: Path
    """Holds `addresses.json`. Survives agent and cluster restarts."""
    service_cidr: str = "10.96.0.0/16"
    """IPv4 range of ClusterIPs."""
    dns_address: str = "10.96.0.10"
    """Where the cluster DNS answers, on every node."""
    cluster_domain: str = "cluster.local"
    netns_dir: Path = Path("/run/netns")
    """Where namespaces are bound to names, as `ip netns` expects."""
    bridge: str = "pods0"
    """The bridge of the pods. At most 15 characters."""
    ports_socket: Path | None = None
    """The launcher's port helper; None = no node ports and no DNS forwarding."""
    serves_node_ports: bool = False
    """This node answers NodePort Services on 127.0.0.1 of the machine. True on one node only."""
    upstream_dns: tuple[str, ...] = ()
    """Resolvers of the machine, asked in this order for names outside the cluster."""
