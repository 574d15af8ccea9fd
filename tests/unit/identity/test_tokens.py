"""Service account tokens: what is issued verifies, everything else is refused."""

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity.errors import TokenError
from mesh.identity.tokens import MAX_TOKEN_BYTES, BoundObject, TokenAuthority, TokenClaims

pytestmark = pytest.mark.unit

AUTHORITY = TokenAuthority(ec.generate_private_key(ec.SECP256R1()), "https://issuer")
CLAIMS = TokenClaims(
    namespace="default",
    service_account="web",
    service_account_uid="u1",
    audiences=("meshwork",),
    issued_at_s=1000,
    expires_at_s=2000,
    bound=BoundObject(kind="Pod", name="web-1", uid="p1"),
    node_name="node-1",
)


def _verify(token: str, now_s: float = 1500) -> TokenClaims:
    return AUTHORITY.verify(token, now_s=now_s, audiences=("meshwork",))


def _b64(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_what_is_issued_verifies() -> None:
    assert _verify(AUTHORITY.issue(CLAIMS)) == CLAIMS
    unbound = replace(CLAIMS, bound=None, node_name="")
    assert _verify(AUTHORITY.issue(unbound)) == unbound
    assert CLAIMS.subject == "system:serviceaccount:default:web"


@pytest.mark.parametrize(("now_s", "message"), [(2000, "expired"), (900, "not valid yet")])
def test_a_token_has_its_time(now_s: float, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        _verify(AUTHORITY.issue(CLAIMS), now_s)


def test_audience_issuer_and_key_must_match() -> None:
    token = AUTHORITY.issue(CLAIMS)
    with pytest.raises(TokenError, match="audience"):
        AUTHORITY.verify(token, now_s=1500, audiences=("vault",))
    stranger = TokenAuthority(ec.generate_private_key(ec.SECP256R1()), "https://issuer")
    with pytest.raises(TokenError, match="not issued by this cluster"):
        stranger.verify(token, now_s=1500, audiences=("meshwork",))


def test_the_header_cannot_choose_another_algorithm() -> None:
    _, payload, signature = AUTHORITY.issue(CLAIMS).split(".")
    for header in ({"alg": "none", "typ": "JWT"}, {"alg": "HS256", "typ": "JWT"}, {}):
        with pytest.raises(TokenError, match="not issued by this cluster"):
            _verify(f"{_b64(header)}.{payload}.{signature}")


def test_a_changed_payload_or_signature_is_refused() -> None:
    header, payload, signature = AUTHORITY.issue(CLAIMS).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "system:serviceaccount:kube-system:admin"
    with pytest.raises(TokenError, match="signature is wrong"):
        _verify(f"{header}.{_b64(claims)}.{signature}")
    with pytest.raises(TokenError, match="wrong length"):
        _verify(f"{header}.{payload}.{_b64(b'short')}")
    with pytest.raises(TokenError, match="signature is wrong"):
        _verify(f"{header}.{payload}.{_b64(bytes(64))}")


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c.d", "!.!.!", "é.é.é", "a.b." + "c" * MAX_TOKEN_BYTES])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(TokenError):
        _verify(token)


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_shown(text: str) -> None:
    with pytest.raises(TokenError) as caught:
        _verify(text)
    assert len(text) < 12 or text not in str(caught.value)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_one_changed_character_is_refused(at: int, to: int) -> None:
    token = AUTHORITY.issue(CLAIMS)
    at %= len(token)
    changed = token[:at] + chr(to) + token[at + 1 :]
    if changed != token:
        with pytest.raises(TokenError):
            _verify(changed)
