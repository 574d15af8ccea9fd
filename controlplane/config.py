"""The configuration of a control plane process: controlplane.json, see docs/contracts.md."""

from pathlib import Path
from typing import Literal

import msgspec

from controlplane.errors import ControlPlaneConfigError

Component = Literal["apiserver", "scheduler", "controllers", "discovery", "traces"]
COMPONENTS: tuple[Component, ...] = ("apiserver", "scheduler", "controllers", "discovery", "traces")
"""Every part, in the order they start."""


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node that gets a certificate and a kubeconfig."""

    name: str
    address: str
    """IPv4, inside the cluster."""


class ControlPlaneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One control plane process. Times are seconds."""

    home: Path
    """Absolute; holds the store, keys, kubeconfigs and logs."""
    api_fd: int | None = None
    """A listening TCP socket inherited from the launcher; null: none."""
    api_addresses: tuple[str, ...] = ("172.30.0.1:6443",)
    """`HOST:PORT` to serve the API on; port 0 takes a free one."""
    external_server: str = ""
    """URL in the admin's kubeconfig; "": no such file."""
    cluster_address: str = "172.30.0.1"
    """Address under which nodes and pods reach this process; discovery and traces listen on it."""
    nodes: tuple[NodeEntry, ...] = ()
    service_cidr: str = "10.96.0.0/16"
    cluster_domain: str = "cluster.local"
    trace_sampling_percent: float = 1.0
    """0 to 100."""
    components: tuple[Component, ...] = COMPONENTS
    discovery_port: int = 15012
    """ADS over TLS."""
    discovery_monitor_port: int = 15014
    """Discovery's HTTPS monitor."""
    traces_otlp_port: int = 4317
    traces_query_port: int = 15015
    node_grace_s: float = 8.0
    """A node silent for this long is unreachable. Default: that of `mesh up`, whose nodes renew every 2 s."""
    eviction_after_s: float = 5.0
    """Pods leave an unreachable node after this long unless they tolerate more. Default: that of `mesh up`; Kubernetes' is 300."""


def load_config(path: Path) -> ControlPlaneConfig:
    """Read controlplane.json. Raises ControlPlaneConfigError with the field at fault."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=ControlPlaneConfig, dec_hook=_decode_path)
    except OSError as exc:
        raise ControlPlaneConfigError(f"{path} can't be read: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise ControlPlaneConfigError(f"{path}: {exc}; see docs/contracts.md") from exc
    check(config)
    return config


def _decode_path(kind: type, value: object) -> Path:
    """msgspec knows no paths by itself."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError("Expected a path as `str`")  # msgspec adds the field


def with_components(config: ControlPlaneConfig, names: str) -> ControlPlaneConfig:
    """The same with only the comma-separated components. Raises ControlPlaneConfigError."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in COMPONENTS]
    if unknown:
        raise ControlPlaneConfigError(f"unknown component {unknown[0]!r}: want some of {', '.join(COMPONENTS)}")
    config = msgspec.structs.replace(config, components=tuple(name for name in COMPONENTS if name in wanted))
    check(config)
    return config


def check(config: ControlPlaneConfig) -> None:
    """Raises ControlPlaneConfigError for values that types alone don't catch."""
    if not config.home.is_absolute():
        raise ControlPlaneConfigError(f"home {str(config.home)!r} is not absolute: give the whole path")
    if not 0.0 <= config.trace_sampling_percent <= 100.0:
        raise ControlPlaneConfigError(f"trace_sampling_percent is {config.trace_sampling_percent}: want 0 to 100")
    if not config.components:
        raise ControlPlaneConfigError(f"components is empty: name some of {', '.join(COMPONENTS)}")
    if config.api_fd is None and not config.api_addresses and "apiserver" in config.components:
        raise ControlPlaneConfigError("the API server has neither api_fd nor api_addresses: give one")
    for name in ("node_grace_s", "eviction_after_s"):
        if getattr(config, name) <= 0:
            raise ControlPlaneConfigError(f"{name} is {getattr(config, name)}: want more than 0 seconds")
