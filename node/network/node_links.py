"""What one node's namespace holds before the first pod: the bridge of the pods, the DNS address, sysctls, base rules.

Everything here is idempotent: an agent that restarts runs it again over what is there.
"""

import errno
import ipaddress
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from node.network.config import NetworkConfig
from node.network.errors import NetworkError
from node.network.namespaces import find_link, system_errors, write_sysctls

_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # Pods send to neighbours on the bridge through the node on purpose: no "there is a shorter way".
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # Where the machine has br_netfilter loaded, a connection translated to a pod on the same bridge would take a short cut below the
    # IP layer, and not come back to the pod it came from.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
    # DAD would hold the interfaces' addresses back for a second.
    "net/ipv6/conf/default/disable_ipv6": "1",
}


def set_up_node_links(ip: Any, config: NetworkConfig, gateway: str) -> None:
    """Bridge with `gateway`, the DNS address on lo, sysctls. `ip` is a pyroute2 handle of the node's namespace."""
    with system_errors(f"network of node {config.node_name}"):
        write_sysctls(_NODE_SYSCTLS)
        prefix_length = ipaddress.IPv4Network(config.pod_cidr).prefixlen
        _ensure_bridge(ip, config.bridge, gateway, prefix_length)
        ip.link("set", index=1, state="up")
        ensure_address(ip, 1, config.dns_address, 32)


def _ensure_bridge(ip: Any, name: str, address: str, prefix_length: int) -> None:
    bridge = ensure_bridge(ip, name)
    ensure_address(ip, bridge, address, prefix_length)


def ensure_bridge(ip: Any, name: str) -> int:
    """The index of bridge `name`, made and brought up when missing."""
    if find_link(ip, name) is None:
        ip.link("add", ifname=name, kind="bridge")
    found = find_link(ip, name)
    if found is None:
        raise NetworkError(f"bridge {name} vanished while it was set up")
    index = int(found["index"])
    ip.link("set", index=index, state="up")
    return index


def ensure_address(ip: Any, index: int, address: str, prefix_length: int) -> None:
    """Give the link `index` an address it may already have."""
    try:
        ip.addr("add", index=index, address=address, prefixlen=prefix_length)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
