"""The configuration of a node agent: NODE.json, see docs/contracts.md."""

from pathlib import Path
from typing import Any

import msgspec

from node.errors import NodeConfigError


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. Paths are absolute."""

    name: str
    address: str
    """The node's own IPv4 address, where its kubelet API listens."""
    pod_cidr: str
    state_dir: Path
    """Pods' states, logs and volumes; survives the agent."""
    run_dir: Path
    kubeconfig: Path
    """The node's client certificate; it serves the kubelet API too."""
    exec_socket: Path
    sidecar_socket: Path
    ca_file: Path
    """The cluster's CA: signs the API server, clients of the kubelet API, and is mounted into pods."""
    service_cidr: str = "10.96.0.0/16"
    dns_address: str = "10.96.0.10"
    cluster_domain: str = "cluster.local"
    ports_socket: Path | None = None
    serves_node_ports: bool = False
    upstream_dns: tuple[str, ...] = ()
    discovery_address: str = ""
    kubelet_port: int = 10250
    """0 lets the kernel choose (tests)."""
    max_pods: int = 110
    """Kubernetes' default."""
    lease_renew_s: float = 10.0
    """Heartbeat period. Seconds, > 0. Source: kubelet, a quarter of the 40 s lease. `mesh up` uses 2."""
    status_period_s: float = 300.0
    """The node's status is written this often even when nothing changes. Source: kubelet nodeStatusReportFrequency."""
    restart_base_s: float = 10.0
    """The first wait before a restart that is not the first in a row; doubles. Seconds, > 0. Source: kubelet."""
    restart_cap_s: float = 300.0
    """No wait before a restart is longer. Seconds. Source: kubelet MaxContainerBackOff."""
    restart_reset_s: float = 600.0
    """A container that ran this long starts again without a wait. Seconds. Source: kubelet."""
    drain_timeout_s: float = 5.0
    """How long a deleted pod waits for every proxy's acknowledgement before its apps get SIGTERM. Seconds, >= 0."""
    log_max_bytes: int = 10 << 20
    """Size of one log file of a container. Source: kubelet containerLogMaxSize."""
    log_max_files: int = 3
    """Files kept per container run. Kubernetes keeps 5."""


def _absolute_path(kind: type, value: Any) -> Path:
    """Read the fields msgspec has no type for: paths. Raises ValueError, which msgspec reports with the field's name."""
    if kind is not Path or not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"want an absolute path, got {value!r}")
    return Path(value)


def load_config(path: Path) -> NodeConfig:
    """Read a NODE.json. Raises NodeConfigError with the field at fault."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeConfig, dec_hook=_absolute_path)
    except OSError as exc:
        raise NodeConfigError(f"{path}: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise NodeConfigError(f"{path}: {exc}: see docs/contracts.md for the fields of NODE.json") from exc
