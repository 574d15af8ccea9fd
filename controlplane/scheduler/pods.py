"""What the scheduler remembers of a pod, worked out once per version of it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from controlplane.scheduler.requests import Amounts, pod_requests, scoring_requests
from mesh.api.core import Pod

HostPort = tuple[str, str, int]
"""(protocol, address, port); address "" is every address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """A pod as filters and scores need it."""

    pod: Pod
    key: str
    """namespace/name."""
    uid: str
    requests: Amounts
    scoring: tuple[float, float]
    """(millicores, bytes) for comparing nodes."""
    host_ports: frozenset[HostPort]
    placement: bytes
    """Equal for pods whose node constraints (name, selector, affinity, tolerations) are equal: a cache key."""
    owner: str
    """uid of the controlling owner, or ""."""
    keeps_others_away: bool
    """It has required pod anti-affinity."""
    minds_pods: bool
    """It has required pod affinity or anti-affinity."""


def facts_of(pod: Pod) -> PodFacts:
    """Work out what matters for placing `pod`."""
    spec = pod.spec
    owner = pod.metadata.controller
    anti, near = spec.affinity.pod_anti_affinity, spec.affinity.pod_affinity
    keeps_others_away = anti is not None and bool(anti.required)
    return PodFacts(
        pod=pod,
        key=pod.key,
        uid=pod.metadata.uid or pod.key,
        requests=pod_requests(spec),
        scoring=scoring_requests(spec),
        host_ports=frozenset(_host_ports(pod)),
        placement=msgspec.json.encode(
            (spec.node_name, spec.node_selector, spec.affinity.node_affinity, spec.tolerations)
        ),
        owner=owner.uid if owner is not None else "",
        keeps_others_away=keeps_others_away,
        minds_pods=keeps_others_away or (near is not None and bool(near.required)),
    )


def _host_ports(pod: Pod) -> Iterable[HostPort]:
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        for port in container.ports:
            if port.host_port:
                address = "" if port.host_ip in ("", "0.0.0.0") else port.host_ip
                yield port.protocol, address, port.host_port


def ports_conflict(wanted: frozenset[HostPort], used: Iterable[HostPort]) -> HostPort | None:
    """The first wanted port that is in use, or None. Every address conflicts with each one."""
    for protocol, address, port in used:
        for own in wanted:
            if own[0] == protocol and own[2] == port and (own[1] == address or not own[1] or not address):
                return own
    return None
