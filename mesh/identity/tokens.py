"""Service account tokens: JWTs signed with ES256, issued and checked by the API server.

Deliberately small: one algorithm, one shape of claims, three segments. Anything else is refused, so there is no
algorithm to confuse and no header to obey. Source: RFC 7515, RFC 7519, Kubernetes "Bound service account tokens".
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from mesh.identity.errors import TokenError

MAX_TOKEN_BYTES = 8192
LEEWAY_S = 5
"""How far in the future nbf may lie (clocks of several control planes)."""
_COORDINATE_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundObject:
    """An object the token lives and dies with."""

    kind: str
    """Pod, Secret or Node."""
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a service account token says."""

    namespace: str
    service_account: str
    service_account_uid: str
    audiences: tuple[str, ...]
    issued_at_s: int
    """Unix seconds, also nbf."""
    expires_at_s: int
    """Unix seconds; the token is refused from then on."""
    bound: BoundObject | None = None
    node_name: str = ""
    """The node of the bound pod; "" if unknown."""

    @property
    def subject(self) -> str:
        """The user name."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"


class TokenAuthority:
    """Issues tokens with one key and checks those it issued."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, issuer: str) -> None:
        self._key = key
        self._public_key = key.public_key()
        self._issuer = issuer
        der = self._public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._key_id = _b64(hashlib.sha256(der).digest())

    @property
    def issuer(self) -> str:
        """The `iss` of every token; also the default audience."""
        return self._issuer

    def issue(self, claims: TokenClaims) -> str:
        """A signed token."""
        header = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        signed = f"{_b64(_dump(header))}.{_b64(_dump(self._payload(claims)))}".encode()
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return f"{signed.decode()}.{_b64(signature)}"

    def verify(self, token: str, *, now_s: float, audiences: Collection[str]) -> TokenClaims:
        """The claims of a good token that is meant for one of `audiences`. Raises TokenError.

        Whether the service account and the bound object still exist is the caller's to check.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError(f"token is longer than {MAX_TOKEN_BYTES} bytes")
        segments = token.split(".")
        if len(segments) != 3:
            raise TokenError("token has not three segments")
        header = _object(_unb64(segments[0]), "header")
        if header != {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}:
            raise TokenError("token was not issued by this cluster (algorithm or key differs)")
        self._check_signature(f"{segments[0]}.{segments[1]}".encode(), _unb64(segments[2]))
        claims = self._claims(_object(_unb64(segments[1]), "payload"))
        if now_s >= claims.expires_at_s:
            raise TokenError("token has expired")
        if claims.issued_at_s > now_s + LEEWAY_S:
            raise TokenError("token is not valid yet: check the machines' clocks")
        if not set(audiences) & set(claims.audiences):
            raise TokenError(f"token is for audience {', '.join(claims.audiences)}, not {', '.join(audiences)}")
        return claims

    def _check_signature(self, signed: bytes, signature: bytes) -> None:
        if len(signature) != 2 * _COORDINATE_BYTES:
            raise TokenError("token's signature has the wrong length")
        r = int.from_bytes(signature[:_COORDINATE_BYTES], "big")
        s = int.from_bytes(signature[_COORDINATE_BYTES:], "big")
        try:
            self._public_key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError) as exc:
            raise TokenError("token's signature is wrong") from exc

    def _payload(self, claims: TokenClaims) -> dict[str, Any]:
        private: dict[str, Any] = {
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.service_account, "uid": claims.service_account_uid},
        }
        if claims.bound is not None:
            private[claims.bound.kind.lower()] = {"name": claims.bound.name, "uid": claims.bound.uid}
        if claims.node_name:
            private["node"] = {"name": claims.node_name}
        return {
            "aud": list(claims.audiences),
            "exp": claims.expires_at_s,
            "iat": claims.issued_at_s,
            "iss": self._issuer,
            "kubernetes.io": private,
            "nbf": claims.issued_at_s,
            "sub": claims.subject,
        }

    def _claims(self, payload: dict[str, Any]) -> TokenClaims:
        if payload.get("iss") != self._issuer:
            raise TokenError("token has another issuer")
        audiences = payload.get("aud")
        if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
            raise TokenError("token's aud is not a list of strings")
        private = _member(payload, "kubernetes.io")
        account = _member(private, "serviceaccount")
        claims = TokenClaims(
            namespace=_text(private, "namespace"),
            service_account=_text(account, "name"),
            service_account_uid=_text(account, "uid"),
            audiences=tuple(audiences),
            issued_at_s=_seconds(payload, "nbf"),
            expires_at_s=_seconds(payload, "exp"),
            bound=_bound(private),
            node_name=_text(private["node"], "name") if isinstance(private.get("node"), dict) else "",
        )
        if payload.get("sub") != claims.subject:
            raise TokenError("token's sub does not name its service account")
        return claims


def _bound(private: dict[str, Any]) -> BoundObject | None:
    for kind in ("Pod", "Secret"):
        if kind.lower() in private:
            member = _member(private, kind.lower())
            return BoundObject(kind=kind, name=_text(member, "name"), uid=_text(member, "uid"))
    node = private.get("node")
    if isinstance(node, dict) and "uid" in node:
        return BoundObject(kind="Node", name=_text(node, "name"), uid=_text(node, "uid"))
    return None


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    """Strict base64url without padding: one text per value, so a token has one spelling."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise TokenError("token is not base64url") from exc
    if _b64(data) != text:
        raise TokenError("token is not canonical base64url")
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise TokenError(f"token's {what} is not JSON") from exc
    if not isinstance(value, dict):
        raise TokenError(f"token's {what} is not a JSON object")
    return value


def _member(value: dict[str, Any], name: str) -> dict[str, Any]:
    member = value.get(name)
    if not isinstance(member, dict):
        raise TokenError(f"token has no {name} claim")
    return member


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise TokenError(f"token's {name} claim is not text")
    return text


def _seconds(value: dict[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool):
        raise TokenError(f"token's {name} claim is not a number of seconds")
    return number
