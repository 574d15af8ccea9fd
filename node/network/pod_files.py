"""The contents of a pod's /etc/resolv.conf and /etc/hosts. Source: Kubernetes, "DNS for Services and Pods"."""


def resolv_conf(namespace: str, *, dns_address: str, cluster_domain: str) -> str:
    """/etc/resolv.conf of a pod in `namespace` (dnsPolicy ClusterFirst)."""
    search = f"{namespace}.svc.{cluster_domain} svc.{cluster_domain} {cluster_domain}"
    return f"nameserver {dns_address}\nsearch {search}\noptions ndots:5\n"


def hosts_file(hostname: str, address: str) -> str:
    """/etc/hosts of a pod."""
    return (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        f"{address}\t{hostname}\n"
    )
