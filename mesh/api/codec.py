"""Manifests and objects as text: YAML with several documents, JSON; and back.

Entry points:
- `decode_manifest(data, source) -> tuple[Document, ...]`: a file of manifests, each with its line and the line of every field.
- `decode_json(data, source) -> Any`: one JSON body, strict about duplicate keys.
- `encode_json(value) -> bytes`, `encode_yaml(value) -> str`.

Every error is a ManifestError that starts with `source:line:column`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from mesh.api.errors import ManifestError
from mesh.api.resources import Json
from mesh.api.tree import is_deeper, item_path
from mesh.api.yaml_reader import MAX_DEPTH, YamlReader, YamlValue, looks_like_number

_TEXT_TAG = "tag:yaml.org,2002:str"
MAX_SIZE_BYTES = 16 * 1024 * 1024
"""A larger manifest file is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a manifest, and where it stands."""

    obj: Json
    source: str
    """As given to decode_manifest: a file's name, usually."""
    line: int
    """Of the object's first field; 1 is the first."""
    lines: Mapping[str, int]
    """Field path -> line, for every field and list element: `spec.http[0].route` -> 14."""

    def line_of(self, path: str) -> int:
        """The line of a field, or of the nearest enclosing field that is in the text (a defaulted field is not)."""
        while path:
            if (line := self.lines.get(path)) is not None:
                return line
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.line

    def where(self, path: str = "") -> str:
        """`web.yaml:14`, for messages and the annotation meshwork.dev/source."""
        return f"{self.source}:{self.line_of(path)}"

    @property
    def name(self) -> str:
        """`Kind namespace/name`, for messages."""
        meta = self.obj.get("metadata") or {}
        namespace, name = meta.get("namespace"), meta.get("name") or f"{meta.get('generateName', '')}*"
        return f"{self.obj['kind']} {namespace}/{name}" if namespace else f"{self.obj['kind']} {name}"


def decode_manifest(data: bytes, source: str) -> tuple[Document, ...]:
    """Every object in a YAML or JSON text, in order; `kind: List` is unpacked, empty documents are left out.

    Strict: UTF-8 only, no duplicate keys, at most MAX_SIZE_BYTES, MAX_DEPTH levels and a million values after expansion of aliases.
    Scalars follow YAML 1.1 as kubectl reads it, except that `22:22` and dates stay texts. Raises ManifestError.
    """
    documents: list[Document] = []
    for value in _read(data, source):
        documents.extend(_objects(value, source))
    return tuple(documents)


def decode_json(data: bytes, source: str) -> Any:
    """One JSON value, any type. Strict: UTF-8, no duplicate keys, no NaN, at most MAX_DEPTH levels. Raises ManifestError."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{source}:1:1: not UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise ManifestError(f"{source}:{exc.lineno}:{exc.colno}: not JSON: {exc.msg}") from exc
    except RecursionError as exc:
        raise ManifestError(f"{source}:1:1: nested deeper than {MAX_DEPTH} levels") from exc
    except _JsonRuleError as exc:
        raise ManifestError(f"{source}:1:1: {exc}") from exc
    if is_deeper(value, MAX_DEPTH):
        raise ManifestError(f"{source}:1:1: nested deeper than {MAX_DEPTH} levels")
    return value


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, keys in their order."""
    return msgspec.json.encode(value)


def encode_yaml(value: Any) -> str:
    """Block-style YAML, keys in their order; texts of several lines as `|` blocks. decode_manifest reads it back the same."""
    return str(
        yaml.dump(value, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=1000)
    )


class _JsonRuleError(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _JsonRuleError(f'duplicate key "{key}": remove one of the two')
            seen.add(key)
    return result


def _no_constant(text: str) -> Any:
    raise _JsonRuleError(f"{text} is not JSON")


def _read(data: bytes, source: str) -> list[YamlValue]:
    if len(data) > MAX_SIZE_BYTES:
        raise ManifestError(f"{source}:1:1: {len(data)} bytes: at most {MAX_SIZE_BYTES} are taken; split the file")
    if data.lstrip()[:1] != b"{":
        return YamlReader(data, source).documents()
    try:
        value = decode_json(data, source)
    except ManifestError as not_json:
        try:  # YAML's flow style starts with a brace too.
            return YamlReader(data, source).documents()
        except ManifestError:
            raise not_json from None
    try:
        lines = YamlReader(data, source).documents()[0].lines
    except ManifestError:  # JSON that is no YAML, such as tabs for indentation: no lines then.
        lines = {}
    return [YamlValue(value=value, line=1, column=1, lines=lines)]


def _objects(document: YamlValue, source: str) -> list[Document]:
    value = document.value
    if value is None:
        return []
    here = f"{source}:{document.line}:{document.column}"
    if not isinstance(value, dict):
        raise ManifestError(f"{here}: a manifest is an object with apiVersion and kind, not {_kind_name(value)}")
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        return _items(document, source)
    _check_type(value, here)
    return [Document(obj=value, source=source, line=document.line, lines=document.lines)]


def _items(document: YamlValue, source: str) -> list[Document]:
    documents: list[Document] = []
    for index, item in enumerate(document.value["items"]):
        prefix = item_path("items", index)
        lines = {p[len(prefix) + 1 :]: n for p, n in document.lines.items() if p.startswith(prefix + ".")}
        line = document.lines.get(prefix, document.line)
        documents.extend(_objects(YamlValue(value=item, line=line, column=1, lines=lines), source))
    return documents


def _check_type(value: Json, here: str) -> None:
    for field, example in (("apiVersion", "apps/v1"), ("kind", "Deployment")):
        if field not in value:
            raise ManifestError(f"{here}: this document has no {field}; add one, such as {field}: {example}")
        if not isinstance(value[field], str) or not value[field]:
            raise ManifestError(f"{here}: {field} must be a text such as {example}, not {value[field]!r}")
    if not isinstance(value.get("metadata", {}), dict):
        raise ManifestError(f"{here}: metadata must be an object with a name, not {_kind_name(value['metadata'])}")


def _kind_name(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "null")


class _Dumper(yaml.CSafeDumper):
    """CSafeDumper with literal blocks for texts of several lines, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    plain_lines = all(line.isprintable() and line == line.rstrip() for line in text.split("\n"))
    return dumper.represent_scalar(_TEXT_TAG, text, style="|" if "\n" in text and plain_lines else _quote(text))


def _quote(text: str) -> str | None:
    """Quotes for a text that other YAML readers, or this one, would take for a number."""
    return "'" if looks_like_number(text) else None


_Dumper.add_representer(str, _represent_text)
