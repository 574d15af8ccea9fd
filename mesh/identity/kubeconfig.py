"""Writing kubeconfig files: one cluster, one user with a client certificate, one context, everything inline.

Source: Kubernetes "Organizing Cluster Access Using kubeconfig Files" (kind Config, v1).
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml

from mesh.identity.files import PRIVATE_MODE, read, write_atomically
from mesh.identity.pki import KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeconfigEntry:
    """Who speaks to which server."""

    server: str
    """`https://127.0.0.1:6443`."""
    user: str
    ca_file: Path
    pair: KeyPair
    cluster: str = "meshwork"
    namespace: str = "default"


def write_kubeconfig(path: Path, entry: KubeconfigEntry) -> None:
    """Write `path` (mode 0600) unless it says the same already. Raises PkiError."""
    data = render_kubeconfig(entry)
    if not (path.exists() and read(path) == data):
        write_atomically(path, data, PRIVATE_MODE)


def render_kubeconfig(entry: KubeconfigEntry) -> bytes:
    """The file's text, with CA, certificate and key inline, so that it can be copied anywhere."""
    context = f"{entry.user}@{entry.cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": entry.cluster,
                "cluster": {"server": entry.server, "certificate-authority-data": _inline(entry.ca_file)},
            }
        ],
        "users": [
            {
                "name": entry.user,
                "user": {
                    "client-certificate-data": _inline(entry.pair.cert_file),
                    "client-key-data": _inline(entry.pair.key_file),
                },
            }
        ],
        "contexts": [
            {
                "name": context,
                "context": {"cluster": entry.cluster, "user": entry.user, "namespace": entry.namespace},
            }
        ],
    }
    return yaml.safe_dump(config, sort_keys=False, width=10_000).encode()


def _inline(path: Path) -> str:
    return base64.b64encode(read(path)).decode()
