"""nft rules that lead connections to a ClusterIP to a ready endpoint, as text. Pure.

One map leads (address, protocol, port) to a chain per service port; that chain picks an endpoint by chance (or by the client's address
with session affinity) and translates. What is still addressed to the service range afterwards has no endpoint and is refused.
Only pods without a sidecar, and the node itself, come here: sidecars balance by themselves.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from node.network.services import Backend, ServiceEntry

TABLE = "meshwork_services"
_MAX_HAIRPINS = 1024


@dataclass(frozen=True, slots=True, order=True)
class VirtualPort:
    """One port of a ClusterIP."""

    protocol: str
    """tcp or udp."""
    address: str
    port: int

    @property
    def chain(self) -> str:
        """The name of its chain: no longer than nft allows, the same each time."""
        return "svc-" + hashlib.sha256(f"{self.protocol} {self.address} {self.port}".encode()).hexdigest()[:16]

    @property
    def element(self) -> str:
        """Its key in the map."""
        return f"{self.address} . {self.protocol} . {self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a virtual port leads. At least one backend."""

    backends: tuple[Backend, ...]
    by_client_address: bool = False


Targets = Mapping[VirtualPort, Target]


def targets_of(entries: Iterable[ServiceEntry], *, dns_address: str) -> dict[VirtualPort, Target]:
    """What the rules must say for these Services. Those without endpoints, and the cluster DNS, which the node answers, are left out."""
    found: dict[VirtualPort, Target] = {}
    for entry in entries:
        if not entry.cluster_ip or entry.cluster_ip == dns_address or not _is_ipv4(entry.cluster_ip):
            continue
        for port in entry.ports:
            if port.backends and port.protocol in ("TCP", "UDP"):
                key = VirtualPort(port.protocol.lower(), entry.cluster_ip, port.port)
                found[key] = Target(port.backends, entry.has_client_affinity)
    return found


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def full_rules(targets: Targets, *, service_cidr: str, dns_address: str, pod_cidr: str) -> str:
    """The whole table, replacing what was there in one transaction."""
    services = f"ip daddr {service_cidr} ip daddr != {dns_address}"
    base = f"""\
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    map ports {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
    set hairpins {{ type ipv4_addr . ipv4_addr; {_hairpin_elements(pod_cidr)} }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        {services} ip daddr . meta l4proto . th dport vmap @ports
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        {services} ip daddr . meta l4proto . th dport vmap @ports
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr . ip daddr @hairpins masquerade
    }}
    chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmp type port-unreachable
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        {services} goto refuse
    }}
    chain own {{
        type filter hook output priority filter; policy accept;
        {services} goto refuse
    }}
}}
"""
    return base + changed_rules({}, targets)


def changed_rules(applied: Targets, wanted: Targets) -> str:
    """The difference as one transaction; "" when there is none."""
    lines: list[str] = []
    for port in sorted(applied.keys() - wanted.keys()):
        lines += [
            f"delete element ip {TABLE} ports {{ {port.element} }}",
            f"flush chain ip {TABLE} {port.chain}",
            f"delete chain ip {TABLE} {port.chain}",
        ]
    for port in sorted(wanted):
        if port not in applied:
            lines += [
                f"add chain ip {TABLE} {port.chain}",
                f"add rule ip {TABLE} {port.chain} {_translation(port, wanted[port])}",
                f"add element ip {TABLE} ports {{ {port.element} : goto {port.chain} }}",
            ]
        elif applied[port] != wanted[port]:
            lines += [
                f"flush chain ip {TABLE} {port.chain}",
                f"add rule ip {TABLE} {port.chain} {_translation(port, wanted[port])}",
            ]
    return "".join(line + "\n" for line in lines)


def _translation(port: VirtualPort, target: Target) -> str:
    backends = target.backends
    if len(backends) == 1:
        return f"meta l4proto {port.protocol} dnat to {backends[0].address}:{backends[0].port}"
    # DEVIATION: Kubernetes' affinity remembers a client for a while; this hashes it, which holds as long as the endpoints don't change.
    pick = "jhash ip saddr" if target.by_client_address else "numgen random"
    choices = ", ".join(f"{number} : {b.address} . {b.port}" for number, b in enumerate(backends))
    return f"meta l4proto {port.protocol} dnat to {pick} mod {len(backends)} map {{ {choices} }}"


def _hairpin_elements(pod_cidr: str) -> str:
    """Each pod with itself: a pod that reaches itself through a Service must see another sender, or it would answer past the node."""
    hosts = list(ipaddress.IPv4Network(pod_cidr).hosts())[1 : _MAX_HAIRPINS + 1]
    return "elements = { " + ", ".join(f"{host} . {host}" for host in hosts) + " };"
