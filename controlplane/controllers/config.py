"""What the controllers need to be told. Built by controlplane.__main__."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllersConfig:
    """Settings of all control loops. Times are seconds."""

    root_ca_pem: str = ""
    """The cluster CA's certificate, published as ConfigMap kube-root-ca.crt in every namespace; "" publishes none."""
    node_grace_s: float = 40.0
    """A node whose Lease has not been renewed for this long is unreachable. > the nodes' renewal interval.
    Source: kube-controller-manager --node-monitor-grace-period. `mesh up` uses 8."""
    node_check_interval_s: float = 1.0
    """How often heartbeats are looked at. > 0."""
    eviction_after_s: float = 300.0
    """How long pods stay bound to an unreachable or not-ready node unless they tolerate its taint for another time.
    Source: Kubernetes' DefaultTolerationSeconds admission (300 s). DEVIATION: a default here, not written into pods."""
    node_quarantine_s: float = 5.0
    """Pods of a node object that is gone are deleted after this long. Source: pod garbage collector (40 s)."""
    force_delete_after_s: float = 5.0
    """Terminating pods on an unreachable node are removed this long after their grace period ended.
    DEVIATION: Kubernetes waits for a person (out-of-service taint); a host-process node that comes back cleans up by itself."""
    max_endpoints_per_slice: int = 100
    """Source: kube-controller-manager --max-endpoints-per-slice."""
    workers: int = 4
    """Keys each controller works on at a time. > 0."""
