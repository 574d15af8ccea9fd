"""Sessions, cookies, hashes and what settings of filters mean."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.resilience.fault import FaultPolicy
from mesh.routing.cookies import cookie_of, set_cookie_line
from mesh.routing.cors import CorsPolicy
from mesh.routing.fault import FaultRule
from mesh.routing.filters import NO_SETTINGS, FilterKind, FilterSettings
from mesh.routing.hashing import combine, hash_text
from mesh.routing.session import (
    SessionPolicy,
    cookie_value,
    header_value,
    parse_cookie_value,
    parse_header_value,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("value", "address", "expires_s"),
    [
        # As Envoy 1.40 made them.
        (b"Cg8xMjcuMC4wLjE6NDI5Njk=", ("127.0.0.1", 42969), 0),
        (b"Cg8xMjcuMC4wLjE6Mzk4ODkQ85an2AY=", ("127.0.0.1", 39889), 1795804019),
    ],
)
def test_session_cookies_are_envoys(value: bytes, address: tuple[str, int], expires_s: int) -> None:
    assert cookie_value(address, expires_s) == value
    assert parse_cookie_value(value, 0.0) == address
    if expires_s:
        assert parse_cookie_value(value, expires_s + 1.0) is None


@given(
    port=st.integers(1, 65535), expires_s=st.integers(0, 2**40), host=st.sampled_from(["10.0.0.1", "::1", "fe80::2"])
)
def test_session_values_can_be_read_back(port: int, expires_s: int, host: str) -> None:
    assert parse_cookie_value(cookie_value((host, port), expires_s), 0.0) == (host, port)
    assert parse_header_value(header_value((host, port))) == (host, port)


@given(value=st.binary(max_size=30))
@example(value=base64.b64encode(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
@example(value=base64.b64encode(b"\x0a\x05ab"))
@example(value=base64.b64encode(b"\x0a\x03a:x"))
@example(value=base64.b64encode(b"\x1a\x00"))
def test_nonsense_is_no_session(value: bytes) -> None:
    for found in (parse_cookie_value(value, 0.0), parse_cookie_value(base64.b64encode(value), 0.0)):
        assert found is None or (found[0] and 0 <= found[1] <= 99999)
    assert parse_header_value(value) is None or base64.b64decode(value).count(b":")


@pytest.mark.parametrize(
    ("scope", "path", "applies"),
    [
        ("", b"/x", True), ("/", b"/x", True), ("/a", b"/a", True), ("/a", b"/a/b", True), ("/a", b"/ab", False),
        ("/a/", b"/a/b", True), ("/a/", b"/a", False),
    ],
)  # fmt: skip
def test_session_cookies_have_a_scope(scope: str, path: bytes, applies: bool) -> None:
    assert SessionPolicy(cookie="c", path=scope).applies_to(path) is applies


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (None, None), (b"a=1", b"1"), (b"b=2; a=1", b"1"), (b'a="q"', b"q"), (b"a=", b""), (b"ba=1", None),
        (b"b=2,a=3", b"3"), (b"a", None), (b"a=x=y", b"x=y"),
    ],
)  # fmt: skip
def test_cookies_are_found(header: bytes | None, value: bytes | None) -> None:
    assert cookie_of(header, b"a") == value


def test_cookies_are_made_as_envoy_makes_them() -> None:
    assert set_cookie_line("c", b"v", ttl_s=10, path="/p") == b'set-cookie: c="v"; Max-Age=10; Path=/p; HttpOnly'
    attributes = (("SameSite", "Lax"), ("Secure", ""))
    assert (
        set_cookie_line("c", b"v", ttl_s=0, path="", attributes=attributes)
        == b'set-cookie: c="v"; SameSite=Lax; Secure; HttpOnly'
    )


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash_text(b"user-1") == 0xA173746B114C6BE8
    assert combine([]) is None
    assert combine([7]) == 7
    assert combine([1, 2]) == 0
    assert combine([2, 1]) == 5
    assert combine([1 << 63, 0]) == 1


def abort(status: int) -> FaultRule:
    return FaultRule(policy=FaultPolicy(abort_status=status, abort_percent=100.0))


def test_inner_settings_replace_outer_ones() -> None:
    outer = FilterSettings(fault=abort(500), cors=CorsPolicy(allow_methods="GET", share=0.5))
    inner = FilterSettings(cors=CorsPolicy(allow_headers="x"))
    merged = inner.over(outer)
    assert merged.fault == abort(500)
    assert merged.cors == CorsPolicy(allow_methods="GET", allow_headers="x")
    assert NO_SETTINGS.over(outer) is outer
    assert outer.over(NO_SETTINGS) is outer


def test_a_disabled_filter_stays_so_until_an_inner_level_has_settings() -> None:
    off = FilterSettings(disabled=frozenset({FilterKind.FAULT}))
    assert off.over(FilterSettings(fault=abort(500))).disabled == {FilterKind.FAULT}
    assert FilterSettings(cors=CorsPolicy()).over(off).disabled == {FilterKind.FAULT}
    assert FilterSettings(fault=abort(501)).over(off).disabled == frozenset()
