"""The CA and its certificates: made once, kept, renewed when they no longer serve."""

import datetime
import ssl
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from mesh.identity.errors import PkiError
from mesh.identity.kubeconfig import KubeconfigEntry, write_kubeconfig
from mesh.identity.pki import CertificateAuthority, CertificateRequest, ensure_signing_key
from mesh.identity.tls import ClientCertificate, client_context, server_context

pytestmark = pytest.mark.unit

NOW = datetime.datetime.now(datetime.UTC)
SERVER = CertificateRequest(common_name="api", names=("localhost", "127.0.0.1"))


def _ca(directory: Path) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(directory, NOW)


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_everything_is_made_once_and_keys_are_private(tmp_path: Path) -> None:
    pair = _ca(tmp_path).ensure("api", SERVER, NOW)
    key = ensure_signing_key(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"ca.crt", "ca.key", "api.crt", "api.key", "sa.key", "sa.pub"}
    for name in ("ca.key", "api.key", "sa.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert _ca(tmp_path).ensure("api", SERVER, NOW) == pair
    assert ensure_signing_key(tmp_path).private_numbers() == key.private_numbers()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("change", ["near its end", "another name", "another user", "another authority", "no key"])
def test_a_certificate_that_no_longer_serves_is_made_again(tmp_path: Path, change: str) -> None:
    now, request = NOW, SERVER
    pair = _ca(tmp_path).ensure("api", SERVER, NOW)
    before = pair.cert_file.read_bytes()
    match change:
        case "near its end":
            now = NOW + datetime.timedelta(days=340)
        case "another name":
            request = CertificateRequest(common_name="api", names=("localhost", "10.0.0.1"))
        case "another user":
            request = CertificateRequest(common_name="other", names=SERVER.names)
        case "another authority":
            (tmp_path / "ca.crt").unlink()
            (tmp_path / "ca.key").unlink()
        case _:
            pair.key_file.unlink()
    _ca(tmp_path).ensure("api", request, now)
    assert pair.cert_file.read_bytes() != before


def test_subject_names_and_usages(tmp_path: Path) -> None:
    ca = _ca(tmp_path)
    server = _certificate(ca.ensure("api", SERVER, NOW).cert_file)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    client = CertificateRequest(common_name="admin", organizations=("system:masters",))
    subject = _certificate(ca.ensure("admin", client, NOW).cert_file).subject
    assert subject.rfc4514_string() == "CN=admin,O=system:masters"
    usages = _certificate(tmp_path / "admin.crt").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.oid.ExtendedKeyUsageOID.SERVER_AUTH not in list(usages)


def test_a_damaged_directory_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    _ca(tmp_path)
    (tmp_path / "ca.key").write_text("junk")
    with pytest.raises(PkiError, match=r"ca\.key.*remove it"):
        _ca(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(PkiError, match=r"ca\.key"):
        _ca(tmp_path)


def test_contexts_accept_our_certificates_only(tmp_path: Path) -> None:
    ca = _ca(tmp_path / "a")
    pair = ca.ensure("api", SERVER, NOW)
    server = server_context(pair, ca.cert_file, client_certificate=ClientCertificate.REQUIRED)
    assert _handshake(server, client_context(ca.cert_file, pair), "localhost")
    with pytest.raises(ssl.SSLError):
        _handshake(server, client_context(ca.cert_file, pair), "elsewhere")
    stranger = _ca(tmp_path / "b")
    with pytest.raises(ssl.SSLError):
        _handshake(server, client_context(stranger.cert_file, pair), "localhost")
    with pytest.raises(ssl.SSLError):
        _handshake(server, client_context(ca.cert_file, stranger.ensure("x", SERVER, NOW)), "localhost")
    with pytest.raises(ssl.SSLError):
        _handshake(server, client_context(ca.cert_file), "localhost")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """A handshake in memory, both ends; True when both are through."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
                end.read(1)
            except ssl.SSLWantReadError:
                pass
    return all(end.version() for end in ends)


def test_kubeconfig_holds_everything_inline(tmp_path: Path) -> None:
    ca = _ca(tmp_path / "pki")
    pair = ca.ensure("admin", CertificateRequest(common_name="admin"), NOW)
    path = tmp_path / "kubeconfig"
    entry = KubeconfigEntry(server="https://127.0.0.1:6443", user="admin", ca_file=ca.cert_file, pair=pair)
    write_kubeconfig(path, entry)
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.stat().st_mtime_ns
    write_kubeconfig(path, entry)
    assert path.stat().st_mtime_ns == written
