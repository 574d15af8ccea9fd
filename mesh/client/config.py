"""Where the API server is and who we are: from fields or from a kubeconfig file."""

import base64
import binascii
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mesh.client.errors import ClientConfigError

_MAX_KUBECONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """One client's settings."""

    server: str
    """`https://host:port`, without a trailing slash. Plain http is refused unless the host is loopback."""
    ca_file: str = ""
    """PEM bundle that signs the server; empty: `ca_data`, or the system's store when that is empty too."""
    cert_file: str = ""
    """PEM client certificate; empty: none."""
    key_file: str = ""
    """PEM key of `cert_file`."""
    token: str = ""
    """Bearer token; empty: none."""
    ca_data: str = ""
    """PEM text, when the CA is not in a file."""
    cert_data: bytes = b""
    key_data: bytes = b""
    """PEM bytes, when certificate and key are not in files."""
    tls_server_name: str = ""
    """Name to check the server's certificate against; empty: the host of `server`."""
    request_timeout_s: float = 30.0
    """Whole time of one request that is not a watch. Seconds, > 0."""
    max_concurrent_requests: int = 64
    """Requests under way at once; more wait their turn. Watches and streams don't count. > 0."""
    user_agent: str = "meshwork"

    def __post_init__(self) -> None:
        _check_server(self.server)

    @classmethod
    def from_kubeconfig(cls, path: str | Path, *, context: str = "") -> "ClientConfig":
        """Read a kubeconfig: the named context, or its current one.

        Understands certificate and key files or data and static tokens. Raises ClientConfigError, also for exec and
        auth-provider users, which run foreign programs.
        """
        return _from_kubeconfig(Path(path), context)

    def ssl_context(self) -> ssl.SSLContext | None:
        """A verifying TLS client context; None for plain http on loopback. Raises ClientConfigError."""
        if not self.server.startswith("https://"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None, cadata=self.ca_data or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._load_certificate(context)
        except (OSError, ValueError) as exc:
            raise ClientConfigError(
                f"TLS settings for {self.server} are unusable ({exc}): check ca_file, cert_file and key_file"
            ) from exc
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        elif self.cert_data:
            _load_certificate_bytes(context, self.cert_data, self.key_data)


def _load_certificate_bytes(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """The ssl module reads certificates from files only: a memory file keeps the key off the disk."""
    descriptor = os.memfd_create("client-certificate")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(cert.rstrip(b"\n") + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _check_server(server: str) -> None:
    scheme, separator, rest = server.partition("://")
    host = rest.rpartition(":")[0] or rest
    if not separator or not host or scheme not in ("http", "https"):
        raise ClientConfigError(f"server {server!r} is not a URL: want https://host:port")
    if server.endswith("/"):
        raise ClientConfigError(f"server {server!r} ends with a slash: remove it")
    if scheme == "http" and host not in ("127.0.0.1", "localhost", "[::1]"):
        raise ClientConfigError(f"server {server!r} is plain http and not on loopback: use https")


def _from_kubeconfig(path: Path, context_name: str) -> ClientConfig:
    document = _load_yaml(path)
    name = context_name or str(document.get("current-context") or "")
    if not name:
        raise ClientConfigError(f"{path}: no current-context: set one or name a context")
    context = _named(path, document, "contexts", name, "context")
    cluster = _named(path, document, "clusters", str(context.get("cluster", "")), "cluster")
    user = _named(path, document, "users", str(context.get("user", "")), "user")
    for unsupported in ("exec", "auth-provider"):
        if unsupported in user:
            raise ClientConfigError(
                f"{path}: user of context {name!r} uses {unsupported!r}: use a certificate or token"
            )
    if cluster.get("insecure-skip-tls-verify"):
        raise ClientConfigError(f"{path}: insecure-skip-tls-verify is refused: give certificate-authority instead")
    return ClientConfig(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca_file=_file(path, cluster.get("certificate-authority")),
        ca_data=_data(path, cluster, "certificate-authority-data").decode("ascii", "replace"),
        cert_file=_file(path, user.get("client-certificate")),
        key_file=_file(path, user.get("client-key")),
        cert_data=_data(path, user, "client-certificate-data"),
        key_data=_data(path, user, "client-key-data"),
        token=_token(path, user),
        tls_server_name=str(cluster.get("tls-server-name") or ""),
    )


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ClientConfigError(f"kubeconfig {path} can't be read: {exc.strerror}") from exc
    if len(raw) > _MAX_KUBECONFIG_BYTES:
        raise ClientConfigError(f"kubeconfig {path} is larger than {_MAX_KUBECONFIG_BYTES} bytes")
    try:
        document = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as exc:
        raise ClientConfigError(f"kubeconfig {path} is not YAML: {exc}") from exc
    if not isinstance(document, dict):
        raise ClientConfigError(f"kubeconfig {path} is not a mapping")
    return document


def _named(path: Path, document: dict[str, Any], section: str, name: str, key: str) -> dict[str, Any]:
    entries = document.get(section) or []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name:
            value = entry.get(key) or {}
            if isinstance(value, dict):
                return value
    raise ClientConfigError(f"{path}: {section} has no entry named {name!r}")


def _file(kubeconfig: Path, value: Any) -> str:
    """Paths in a kubeconfig are relative to its own folder."""
    return str(kubeconfig.parent / str(value)) if value else ""


def _data(path: Path, section: dict[str, Any], key: str) -> bytes:
    value = section.get(key)
    if not value:
        return b""
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error as exc:
        raise ClientConfigError(f"{path}: {key} is not base64") from exc


def _token(path: Path, user: dict[str, Any]) -> str:
    if token_file := _file(path, user.get("tokenFile")):
        try:
            return Path(token_file).read_text().strip()
        except OSError as exc:
            raise ClientConfigError(f"{path}: tokenFile {token_file} can't be read: {exc.strerror}") from exc
    return str(user.get("token") or "")
