"""What the API server needs to be told. Built by controlplane.__main__; the server reads no environment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress:
    """A node of the cluster that gets a certificate and a kubeconfig."""

    name: str
    address: str
    """Its IP address inside the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """One API server. Addresses and files: docs/contracts.md, "HOME" and "Processes of `mesh up`"."""

    home: Path
    """Directory of kubeconfig, pki/ and run/."""
    api_fd: int | None = None
    """A listening TCP socket inherited from the launcher, or None."""
    api_addresses: tuple[str, ...] = ("127.0.0.1:0",)
    """`HOST:PORT` to listen on besides; port 0 takes a free one."""
    external_server: str = ""
    """URL that the admin's kubeconfig names; "" writes none."""
    cluster_address: str = "127.0.0.1"
    """IP address pods and nodes reach this server under."""
    nodes: tuple[NodeAddress, ...] = ()
    service_cidr: str = "10.96.0.0/16"
    """Cluster IPs come from here; its first address is service default/kubernetes."""
    node_ports: tuple[int, int] = (30000, 32767)
    """First and last port a NodePort Service may take."""
    cluster_domain: str = "cluster.local"
    extra_names: tuple[str, ...] = ()
    """More DNS names or IP addresses for the server's certificate."""

    max_body_bytes: int = 3 * 1024 * 1024
    """Larger request bodies get 413. Source: kube-apiserver's MaxRequestBodyBytes."""
    max_requests_in_flight: int = 400
    """Requests beyond it, watches apart, get 429. Source: kube-apiserver --max-requests-inflight."""
    max_watches: int = 10_000
    """Watches beyond it get 429."""
    watch_buffer_bytes: int = 16 * 1024 * 1024
    """A watcher that leaves more than this unread is cut; it lists again."""
    watch_timeout_s: float = 1800.0
    """Longest watch when the client sets no timeoutSeconds; the actual one is drawn from 1 to 2 times this."""
    bookmark_interval_s: float = 60.0
    event_ttl_s: float = 3600.0
    """Events are kept this long. Source: kube-apiserver --event-ttl."""
    kubelet_port: int = 10250
    kubelet_timeout_s: float = 30.0
    """To connect to a node and get the head of its answer."""
    compaction_interval_s: float = 300.0
    """Every so often, history older than this is forgotten; watches from before it get 410. Source: kube-apiserver
    --etcd-compaction-interval."""
