"""The pod's own /etc/hosts and /etc/resolv.conf. Pure. Source: Kubernetes docs, "DNS for Services and Pods"."""

from mesh.api.pod import Pod
from node.config import NodeConfig

MAX_HOSTNAME = 63


def hostname(pod: Pod) -> str:
    """spec.hostname or the pod's name, cut to what Linux allows."""
    return (pod.spec.hostname or pod.metadata.name)[:MAX_HOSTNAME].rstrip("-.")


def hosts_file(pod: Pod, address: str, config: NodeConfig) -> str:
    """The text of /etc/hosts."""
    name = hostname(pod)
    names = name
    if pod.spec.subdomain:
        names = f"{name}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{config.cluster_domain} {name}"
    lines = ["# Written by the node agent.", "127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines.append(f"{address} {names}")
    lines += [f"{alias.ip} {' '.join(alias.hostnames)}" for alias in pod.spec.host_aliases]
    return "\n".join(lines) + "\n"


def resolv_conf(pod: Pod, config: NodeConfig, machine: str) -> str:
    """The text of /etc/resolv.conf. `machine` is the machine's own, for dnsPolicy Default."""
    policy = pod.spec.dns_policy
    if pod.spec.host_network and policy == "ClusterFirst":
        policy = "Default"
    extra = pod.spec.dns_config
    added = [f"nameserver {server}" for server in extra.nameservers]
    options = [f"{option.name}:{option.value}" if option.value else option.name for option in extra.options]
    if policy == "Default":
        return machine.rstrip("\n") + "\n" + "".join(f"{line}\n" for line in added)
    searches: list[str] = []
    lines: list[str] = []
    if policy != "None":
        domain = config.cluster_domain
        lines.append(f"nameserver {config.dns_address}")
        searches = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain]
        options = [*(option for option in ("ndots:5",) if not any(o.startswith("ndots:") for o in options)), *options]
    searches += extra.searches
    lines += added
    if searches:
        lines.append(f"search {' '.join(searches)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"
