import json
from typing import Any

import pytest
from hypothesis import given

from mesh.api.codec import decode_json, decode_manifest, encode_json, encode_yaml
from mesh.api.errors import ManifestError
from mesh.api.yaml_reader import YamlReader
from tests.unit.api.json_values import JSON, OBJECTS

pytestmark = pytest.mark.unit

MANIFEST = b"""\
# two objects
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
  annotations: {example.com/a: "1"}
spec:
  http:
  - route:
    - destination:
        host: web
      weight: 90
---
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata:
    name: web
    namespace: prod
"""


def test_each_document_knows_the_line_of_every_field() -> None:
    policy, service = decode_manifest(MANIFEST, "web.yaml")
    assert policy.line_of("spec.http[0].route[0].weight") == 12
    assert policy.where("metadata.annotations[example.com/a]") == "web.yaml:6"
    assert policy.where("spec.http[0].timeout") == "web.yaml:9"
    assert (policy.where(), policy.name) == ("web.yaml:2", "VirtualService web")
    assert (service.name, service.where("metadata.namespace")) == ("Service prod/web", "web.yaml:22")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("0755", 493),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("yes", True),
        ("off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("22:22", "22:22"),
        ("2001-01-01", "2001-01-01"),
        ('"80"', "80"),
        ("'yes'", "yes"),
        ("!!str 80", "80"),
        ("1_000", 1000),
        ("1.2.3", "1.2.3"),
        ("0.0.0.0", "0.0.0.0"),
        ("08", "08"),
        ("=", "="),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: Any) -> None:
    assert YamlReader(f"a: {text}".encode(), "m").documents()[0].value == {"a": value}


def test_keys_become_texts_and_merges_and_aliases_expand() -> None:
    text = b"base: &b {x: 1, y: 2}\n1: one\ntrue: yes\nuse: {<<: *b, y: 3}\ncopy: *b"
    [document] = YamlReader(text, "m").documents()
    assert document.value == {
        "base": {"x": 1, "y": 2},
        "1": "one",
        "true": True,
        "use": {"y": 3, "x": 1},
        "copy": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        (b"a: 1\nb: 2\na: 3", "3:1", 'duplicate key "a"'),
        (b"x:\n  a: 1\n  a: 3", "3:3", 'duplicate key "a" in x'),
        (b"a:\n\t- b", "2:1", "not tabs"),
        (b"a: [1", "2:1", "not YAML"),
        (b"kind: a: b", "1:8", "indentation"),
        (b"[]", "1:1", "not a list"),
        (b"3", "1:1", "not a number"),
        (b"a: &x [*x]", "1:8", "no anchor"),
        (b"a: *q", "1:4", "no anchor"),
        (b"a: !!python/object:os.system x", "1:4", "not allowed"),
        (b"a: !!binary eA==", "1:4", "not allowed"),
        (b"a: .inf", "1:4", "no JSON form"),
        (b"? [a]\n: b", "1:3", "key must be"),
        (b"a\xff", "1:1", "not UTF-8"),
        (b"a: \x00", "1:1", "not YAML"),
        (b"[" * 5000, "1:101", "nested deeper"),
        (b"kind: X", "1:1", "no apiVersion"),
        (b"\n\napiVersion: v1", "3:1", "no kind"),
        (b"apiVersion: 1\nkind: X", "1:1", "apiVersion must be a text"),
        (b"apiVersion: v1\nkind: X\nmetadata: a", "1:1", "metadata must be an object"),
        (b'{"a":1,"a":2}', "1:1", "duplicate key"),
        (b'{"a":', "1:6", "not JSON"),
        (b"a: " + b"9" * 80, "1:4", "too long"),
        (b"a: 1" + b"0" * 20 + b"e999", "1:4", "too large"),
    ],
)
def test_bad_texts_are_refused_with_their_place(text: bytes, place: str, problem: str) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_manifest(text, "m.yaml")
    assert str(caught.value).startswith(f"m.yaml:{place}: ")
    assert problem in str(caught.value)


def test_alias_bombs_are_refused_by_size_and_by_depth() -> None:
    wide = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    with pytest.raises(ManifestError, match="more than 1000000 values"):
        decode_manifest(wide.encode(), "m")
    deep = "a0: &a0 []\n" + "".join(f"a{i}: &a{i} {'[' * 50}*a{i - 1}{']' * 50}\n" for i in range(1, 30))
    with pytest.raises(ManifestError, match="nested deeper"):
        decode_manifest(deep.encode(), "m")


def test_json_with_tabs_and_surrogates_is_read_without_lines() -> None:
    [document] = decode_manifest(b'{\n\t"apiVersion": "v1",\n\t"kind": "X",\n\t"a": "\\ud83d\\ude00"}', "m.json")
    assert document.obj["a"] == "\U0001f600"


def test_flow_style_yaml_is_no_json_and_still_read() -> None:
    [document] = decode_manifest(b"{apiVersion: v1, kind: X}", "m")
    assert document.obj == {"apiVersion": "v1", "kind": "X"}


@pytest.mark.parametrize(
    "text", [b"NaN", b'{"a":1,"a":2}', b"[1,]", b"\xff", b"[" * 100_000, b"", b"[" * 200 + b"]" * 200]
)
def test_json_bodies_are_read_strictly(text: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^body:\d+:\d+: "):
        decode_json(text, "body")


@given(JSON)
def test_json_round_trip(value: Any) -> None:
    assert decode_json(encode_json(value), "m") == value


@given(OBJECTS)
def test_yaml_round_trip(value: Any) -> None:
    obj = {**value, "apiVersion": "v1", "kind": "X", "metadata": {}}
    obj.pop("items", None)
    [document] = decode_manifest(encode_yaml(obj).encode(), "m")
    assert json.dumps(document.obj) == json.dumps(obj)


def test_yaml_writes_texts_of_several_lines_as_blocks() -> None:
    assert encode_yaml({"a": "x\ny\n", "b": "1e3", "c": "yes"}) == "a: |\n  x\n  y\nb: '1e3'\nc: 'yes'\n"
