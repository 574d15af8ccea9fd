"""TLS contexts: what our servers ask of clients and our clients of servers. Nothing below TLS 1.2."""

import ssl
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from mesh.identity.errors import PkiError
from mesh.identity.pki import KeyPair

HTTP_1_1 = ("http/1.1",)


class ClientCertificate(Enum):
    """Whether a server wants to see one."""

    NONE = "none"
    OPTIONAL = "optional"
    """A client may come without; one it shows must be from our CA."""
    REQUIRED = "required"


def server_context(
    pair: KeyPair,
    ca_file: Path | None = None,
    *,
    client_certificate: ClientCertificate = ClientCertificate.NONE,
    protocols: Sequence[str] = HTTP_1_1,
) -> ssl.SSLContext:
    """A server's context. `ca_file` is needed to ask for client certificates. Raises PkiError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    _load_pair(context, pair)
    match client_certificate:
        case ClientCertificate.NONE:
            return context
        case ClientCertificate.OPTIONAL:
            context.verify_mode = ssl.CERT_OPTIONAL
        case ClientCertificate.REQUIRED:
            context.verify_mode = ssl.CERT_REQUIRED
    if ca_file is None:
        raise PkiError("a server that asks for client certificates needs the CA that signs them")
    _load_ca(context, ca_file)
    return context


def client_context(
    ca_file: Path, pair: KeyPair | None = None, *, protocols: Sequence[str] = HTTP_1_1
) -> ssl.SSLContext:
    """A client's context: the server must be signed by `ca_file` and carry the name dialled. Raises PkiError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    _load_ca(context, ca_file)
    if pair is not None:
        _load_pair(context, pair)
    return context


def _load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    try:
        context.load_cert_chain(pair.cert_file, pair.key_file)
    except (OSError, ssl.SSLError) as exc:
        raise PkiError(f"{pair.cert_file}, {pair.key_file}: can't be used together: {exc}") from exc


def _load_ca(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise PkiError(f"{ca_file}: no CA certificate can be read from it: {exc}") from exc
