"""Bodies in Kubernetes' protobuf envelope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.protobuf import MAGIC, decode_protobuf

pytestmark = pytest.mark.unit


def _varint(value: int) -> bytes:
    out = b""
    value &= 0xFFFFFFFFFFFFFFFF
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + _field(1, _field(1, api_version) + _field(2, kind)) + _field(2, raw) + _field(3, "") + _field(4, "")


def test_a_config_map_with_its_maps() -> None:
    metadata = _field(1, "cm") + _field(11, _field(1, "app") + _field(2, "web")) + _field(8, b"")
    raw = (
        _field(1, metadata) + _field(2, _field(1, "k") + _field(2, "")) + _field(3, _field(1, "b") + _field(2, b"\xff"))
    )
    assert decode_protobuf(_envelope("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "labels": {"app": "web"}},
        "data": {"k": ""},
        "binaryData": {"b": "/w=="},
    }


def test_a_deployment_as_kubectl_creates_it() -> None:
    container = _field(1, "nginx") + _field(2, "nginx:1") + _field(5, "") + _field(8, b"")
    template = _field(1, _field(11, _field(1, "app") + _field(2, "d"))) + _field(2, _field(2, container))
    surge = _field(2, _field(1, 1) + _field(2, 0) + _field(3, "25%"))
    spec = _field(1, 3) + _field(3, template) + _field(4, _field(1, "RollingUpdate") + _field(2, surge)) + _field(7, 0)
    body = _envelope("apps/v1", "Deployment", _field(1, _field(1, "d")) + _field(2, spec) + _field(3, b"\x08\x01"))
    got = decode_protobuf(body)["spec"]
    assert got["replicas"] == 3
    assert got["template"]["spec"]["containers"] == [{"name": "nginx", "image": "nginx:1", "resources": {}}]
    assert got["strategy"]["rollingUpdate"] == {"maxSurge": "25%"}
    assert got["paused"] is False


def test_negative_numbers_are_signed() -> None:
    body = _envelope("v1", "DeleteOptions", _field(1, -1))
    assert decode_protobuf(body)["gracePeriodSeconds"] == -1


def test_an_unknown_field_is_an_error_and_not_lost() -> None:
    with pytest.raises(ApiStatusError, match="field 99 of ConfigMap"):
        decode_protobuf(_envelope("v1", "ConfigMap", _field(99, "x")))


def test_an_unknown_kind_is_415() -> None:
    with pytest.raises(ApiStatusError) as caught:
        decode_protobuf(_envelope("batch/v1", "Job", b""))
    assert caught.value.code == 415


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        MAGIC + b"\x0a\xff",
        MAGIC + b"\x08" + b"\xff" * 11,
        _envelope("v1", "ConfigMap", b"\x0d\x00\x00\x00\x00"),
    ],
)
def test_malformed_bodies(data: bytes) -> None:
    with pytest.raises(ApiStatusError):
        decode_protobuf(data)


@given(st.binary(max_size=120))
def test_any_bytes_are_an_object_or_a_refusal(raw: bytes) -> None:
    outcome = _outcome(_envelope("v1", "Service", raw))
    assert outcome in (400, "Service")


def _outcome(data: bytes) -> object:
    try:
        return decode_protobuf(data)["kind"]
    except ApiStatusError as exc:
        return exc.code
