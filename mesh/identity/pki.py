"""The cluster's certificate authority and the certificates it issues, kept in one directory.

Keys are ECDSA P-256. A file that exists and is still good is used as it is; one that is missing, near its end, from
another CA or without a name it now needs is made again, so a start on an old home directory always ends with a set that
works. Source: Kubernetes "PKI certificates and requirements" for names and usages.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.identity.errors import PkiError
from mesh.identity.files import PRIVATE_MODE, PUBLIC_MODE, read, write_atomically

CA_LIFETIME = datetime.timedelta(days=3650)
CERTIFICATE_LIFETIME = datetime.timedelta(days=365)
RENEW_BEFORE = datetime.timedelta(days=30)
"""A certificate with less time left is issued anew at start."""
CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """What a certificate is to say."""

    common_name: str
    """The user name on the API server."""
    organizations: tuple[str, ...] = ()
    """The user's groups."""
    names: tuple[str, ...] = ()
    """DNS names and IP addresses it serves under; empty for a certificate that is only a client's."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a certificate and its key are."""

    cert_file: Path
    key_file: Path


class CertificateAuthority:
    """A CA whose key and certificate are `ca.key` and `ca.crt` in `directory`."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._directory = directory
        self._certificate = certificate
        self._key = key

    @classmethod
    def load_or_create(cls, directory: Path, now: datetime.datetime) -> "CertificateAuthority":
        """The CA of `directory`, made if it has none. Raises PkiError if what is there is damaged or incomplete."""
        cert_file, key_file = directory / "ca.crt", directory / "ca.key"
        if cert_file.exists() or key_file.exists():
            return cls(directory, _load_certificate(cert_file), load_private_key(key_file))
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, now)
        write_atomically(key_file, _key_pem(key), PRIVATE_MODE)
        write_atomically(cert_file, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
        return cls(directory, certificate, key)

    @property
    def cert_file(self) -> Path:
        """What clients trust."""
        return self._directory / "ca.crt"

    @property
    def pem(self) -> bytes:
        """The CA's certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def ensure(self, name: str, request: CertificateRequest, now: datetime.datetime) -> KeyPair:
        """`NAME.crt` and `NAME.key` in the directory for `request`: the ones there if they still serve, else new ones."""
        pair = KeyPair(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        if not self._still_serves(pair, request, now):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self.issue(request, key.public_key(), now)
            write_atomically(pair.key_file, _key_pem(key), PRIVATE_MODE)
            write_atomically(pair.cert_file, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
        return pair

    def issue(
        self, request: CertificateRequest, public_key: ec.EllipticCurvePublicKey, now: datetime.datetime
    ) -> x509.Certificate:
        """Sign a certificate for `public_key`; a server's as well when the request has names."""
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if request.names:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(request))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + CERTIFICATE_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if request.names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in request.names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def _still_serves(self, pair: KeyPair, request: CertificateRequest, now: datetime.datetime) -> bool:
        if not (pair.cert_file.exists() and pair.key_file.exists()):
            return False
        certificate, key = _load_certificate(pair.cert_file), load_private_key(pair.key_file)
        return (
            certificate.public_key() == key.public_key()
            and certificate.subject == _subject(request)
            and certificate.not_valid_after_utc - now > RENEW_BEFORE
            and set(request.names) <= _names_of(certificate)
            and self._signed(certificate)
        )

    def _signed(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def ensure_signing_key(directory: Path, name: str = "sa") -> ec.EllipticCurvePrivateKey:
    """The key of `NAME.key` that signs service account tokens, made if missing; `NAME.pub` is written beside it."""
    key_file = directory / f"{name}.key"
    if key_file.exists():
        return load_private_key(key_file)
    key = ec.generate_private_key(ec.SECP256R1())
    write_atomically(key_file, _key_pem(key), PRIVATE_MODE)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_atomically(directory / f"{name}.pub", public, PUBLIC_MODE)
    return key


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A PEM private key on P-256. Raises PkiError."""
    try:
        key = serialization.load_pem_private_key(read(path), password=None)
    except (ValueError, TypeError) as exc:
        raise PkiError(f"{path}: no usable private key in it; remove it to have it made again") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path}: the key is not an elliptic curve key; remove it to have it made again")
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read(path))
    except ValueError as exc:
        raise PkiError(f"{path}: no certificate in it; remove it to have it made again") from exc


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshwork-ca")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(request: CertificateRequest) -> x509.Name:
    groups: Sequence[x509.NameAttribute[str]] = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in request.organizations
    ]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, request.common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
