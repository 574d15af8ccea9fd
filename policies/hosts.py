"""Host names in policies: short names, `svc.ns`, and fully qualified ones."""

from collections.abc import Collection


def service_host(name: str, namespace: str, domain: str = "cluster.local") -> str:
    """The fully qualified name of a Service: `name.namespace.svc.DOMAIN`."""
    return f"{name}.{namespace}.svc.{domain}"


def resolve_host(host: str, namespace: str, known: Collection[str], domain: str = "cluster.local") -> str:
    """The host a policy of `namespace` means by `host`, lower case.

    A name without a dot is a Service of the policy's namespace. `svc.ns` and `svc.ns.svc` are a Service if that one is
    in `known` (fully qualified names); otherwise, like `example.com` and wildcards, they stand for themselves.
    """
    host = host.lower().rstrip(".")
    if "*" in host or not host:
        return host
    if "." not in host:
        return service_host(host, namespace, domain)
    for suffix in (f".svc.{domain}", f".{domain}"):
        if (candidate := host + suffix) in known:
            return candidate
    return host


def service_aliases(name: str, namespace: str, domain: str = "cluster.local") -> tuple[str, ...]:
    """Every name a client may call a Service by, the shortest first.

    The bare name is one of them in every namespace; who owns it where is the caller's matter.
    """
    return (name, f"{name}.{namespace}", f"{name}.{namespace}.svc", service_host(name, namespace, domain))
