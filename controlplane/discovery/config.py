"""Settings of discovery."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """What resources are built with."""

    domain: str = "cluster.local"
    trace_sampling_percent: float = 1.0
    """Share of requests that start a trace. 0 to 100."""
    traces_address: str = "172.30.0.1"
    """IP address of the OTLP gRPC receiver."""
    traces_port: int = 4317
    access_log_path: str = "/dev/stdout"
    """Where sidecars write a line per request; "" for nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryConfig:
    """Where discovery listens and how it behaves."""

    cluster_address: str = "172.30.0.1"
    """The address that pods reach the control plane by."""
    listen_address: str = ""
    """IP address to bind; empty: `cluster_address`."""
    ads_port: int = 15012
    """0 binds any free port."""
    monitor_port: int = 15014
    """0 binds any free port."""
    traces_monitor_port: int = 15015
    """Where the trace queries listen; only written into the Service mesh-traces."""
    ca_file: str
    """PEM: the cluster's CA; signs our certificate and the monitor's clients'."""
    cert_file: str
    key_file: str
    """PEM: the certificate for `cluster_address`, and its key."""
    mesh: MeshSettings = MeshSettings()
    debounce_s: float = 0.010
    """Changes within this time are published together. Removed endpoints are published at once. Seconds, >= 0."""
    debounce_max_s: float = 0.100
    """A steady flow of changes is published at least this often. Seconds."""
    settle_timeout_s: float = 2.0
    """Listeners and routes wait this long for the clusters and endpoints they need to be acknowledged, then go anyway."""
    status_delay_s: float = 1.0
    """A policy that is not acknowledged after this time gets Programmed: False with the proxies it waits for."""
    max_streams: int = 10_000
    """More proxies are refused with RESOURCE_EXHAUSTED."""
