"""The home directory's keys, certificates and kubeconfig files, complete before the server listens."""

import datetime
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.apiserver.config import ApiServerConfig
from mesh.identity.kubeconfig import KubeconfigEntry, write_kubeconfig
from mesh.identity.pki import CertificateAuthority, CertificateRequest, KeyPair, ensure_signing_key

logger = logging.getLogger(__name__)

MASTERS = "system:masters"
CONTROL_PLANE_USER = "system:meshwork:control-plane"
KUBELET_CLIENT_USER = "kube-apiserver-kubelet-client"
ADMIN_USER = "meshwork-admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Where the cluster's keys and certificates are."""

    authority: CertificateAuthority
    server: KeyPair
    """The API server's."""
    kubelet_client: KeyPair
    """What the API server shows to nodes, discovery's monitor and the trace store."""
    admin: KeyPair
    control_plane: KeyPair
    """The client certificate of scheduler, controllers and discovery."""
    discovery: KeyPair
    """The server certificate of discovery (15012, 15014) and traces (15015)."""
    nodes: Mapping[str, KeyPair]
    """Per node: client of the API server and server of the kubelet API."""
    token_key: ec.EllipticCurvePrivateKey
    """Signs service account tokens."""

    @property
    def ca_file(self) -> Path:
        return self.authority.cert_file


def prepare_home(config: ApiServerConfig) -> Pki:
    """Load or make everything under HOME/pki, HOME/kubeconfig and HOME/run/*.kubeconfig. Idempotent. Raises PkiError."""
    now = datetime.datetime.now(datetime.UTC)
    directory = config.home / "pki"
    authority = CertificateAuthority.load_or_create(directory, now)

    def ensure(name: str, user: str, groups: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> KeyPair:
        return authority.ensure(name, CertificateRequest(common_name=user, organizations=groups, names=names), now)

    pki = Pki(
        authority=authority,
        server=ensure("apiserver", "kube-apiserver", names=_server_names(config)),
        kubelet_client=ensure("apiserver-kubelet-client", KUBELET_CLIENT_USER, (MASTERS,)),
        admin=ensure("admin", ADMIN_USER, (MASTERS,)),
        control_plane=ensure("controlplane", CONTROL_PLANE_USER, (CONTROL_PLANE_USER,)),
        discovery=ensure("discovery", "meshwork-discovery", names=_discovery_names(config)),
        nodes={
            node.name: ensure(node.name, f"system:node:{node.name}", ("system:nodes",), (node.name, node.address))
            for node in config.nodes
        },
        token_key=ensure_signing_key(directory),
    )
    _write_kubeconfigs(config, pki)
    return pki


def _server_names(config: ApiServerConfig) -> tuple[str, ...]:
    hosts = [address.rpartition(":")[0].strip("[]") for address in config.api_addresses]
    first = str(ipaddress.ip_network(config.service_cidr)[1])
    names = [
        "localhost",
        "127.0.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{config.cluster_domain}",
        first,
        config.cluster_address,
        *(host for host in hosts if host not in ("", "0.0.0.0", "::")),
        *config.extra_names,
    ]
    return tuple(dict.fromkeys(names))


def _discovery_names(config: ApiServerConfig) -> tuple[str, ...]:
    names = ["localhost", "127.0.0.1", config.cluster_address]
    for service in ("mesh-discovery", "mesh-traces"):
        short = f"{service}.meshwork-system.svc"
        names += [f"{service}.meshwork-system", short, f"{short}.{config.cluster_domain}"]
    return tuple(dict.fromkeys(names))


def _write_kubeconfigs(config: ApiServerConfig, pki: Pki) -> None:
    def write(path: Path, server: str, user: str, pair: KeyPair) -> None:
        entry = KubeconfigEntry(server=server, user=user, ca_file=pki.ca_file, pair=pair)
        write_kubeconfig(path, entry)

    inside = cluster_server(config)
    if config.external_server:
        write(config.home / "kubeconfig", config.external_server, ADMIN_USER, pki.admin)
    if inside:
        write(config.home / "run" / "controlplane.kubeconfig", inside, CONTROL_PLANE_USER, pki.control_plane)
        for name, pair in pki.nodes.items():
            write(config.home / "run" / f"{name}.kubeconfig", inside, f"system:node:{name}", pair)


def cluster_server(config: ApiServerConfig) -> str:
    """The server's URL inside the cluster: the first listening address with a fixed port; "" when there is none."""
    for address in config.api_addresses:
        host, _, port = address.rpartition(":")
        if port != "0":
            reachable = config.cluster_address if host in ("", "0.0.0.0", "[::]") else host
            return f"https://{reachable}:{port}"
    return ""
