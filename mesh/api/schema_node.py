"""Schemas compiled for walking: OpenAPI v3 schemas of kinds as linked nodes.

`compile_schema` reads both the JSON schemas of Kubernetes' own types and a CustomResourceDefinition's openAPIV3Schema.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.api.errors import SchemaError

REF_PREFIX = "#/$defs/"
_NUMERIC_LIMITS = ("minimum", "maximum", "multipleOf")
_SIZE_LIMITS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_CHOICES = ("allOf", "anyOf", "oneOf")
UNSUPPORTED = ("x-kubernetes-validations",)
"""Keywords that are accepted and not carried out. See `unsupported_keywords`."""


@dataclass(slots=True, eq=False)
class SchemaNode:
    """What one value may be. Linked (recursive types point back), built once, then read only."""

    types: frozenset[str] = frozenset()
    """Of object, array, string, integer, number, boolean; empty means any."""
    is_nullable: bool = True
    properties: dict[str, "SchemaField"] = field(default_factory=dict)
    additional: "SchemaNode | None" = None
    """The schema of fields not in `properties`."""
    is_open: bool = True
    """Fields neither in `properties` nor covered by `additional` are allowed."""
    items: "SchemaNode | None" = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] = ()
    format: str = ""
    pattern: re.Pattern[str] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    """minimum, maxLength, exclusiveMinimum, uniqueItems and so on, as in the schema."""
    choices: tuple[tuple[str, tuple["SchemaNode", ...]], ...] = ()
    """(allOf | anyOf | oneOf | not, schemas)."""
    list_map_keys: tuple[str, ...] = ()
    """Elements of the list are identified by these fields."""
    is_set: bool = False
    has_default: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class SchemaField:
    """A field of an object: its schema and how a strategic patch treats it."""

    node: SchemaNode
    strategies: frozenset[str] = frozenset()
    """merge, retainKeys, replace."""
    merge_key: str = ""


class SchemaCompiler:
    """Compiles schemas that share definitions. Not for use by several threads."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._compiled: dict[str, SchemaNode] = {}

    def definition(self, name: str) -> SchemaNode:
        """The node of a shared definition. Raises SchemaError when there is none."""
        node = self._compiled.get(name)
        if node is None:
            if name not in self._definitions:
                raise SchemaError(f"no schema definition {name}")
            node = self._compiled[name] = SchemaNode()
            self._fill(node, self._definitions[name], name)
        return node

    def compile(self, schema: Mapping[str, Any], where: str, *, is_custom: bool = False) -> SchemaNode:
        """The node of a schema. `is_custom` applies CustomResourceDefinition rules: null only where `nullable`. Raises
        SchemaError, starting with the path in the schema."""
        node = SchemaNode()
        self._fill(node, schema, where, is_custom)
        return node

    def _child(self, schema: Any, where: str, is_custom: bool) -> SchemaNode:
        if not isinstance(schema, dict):
            raise SchemaError(f"{where}: a schema must be an object")
        reference = schema.get("$ref")
        if reference is not None and not is_custom:
            return self.definition(str(reference).removeprefix(REF_PREFIX))
        return self.compile(schema, where, is_custom=is_custom)

    def _fill(self, node: SchemaNode, schema: Mapping[str, Any], where: str, is_custom: bool = False) -> None:
        if is_custom and "$ref" in schema:
            raise SchemaError(f"{where}.$ref: a custom resource's schema must be written out, without references")
        types = _types(schema, where)
        node.types = types
        node.is_nullable = bool(schema.get("nullable")) or not is_custom
        node.enum = tuple(schema.get("enum") or ())
        node.format = str(schema.get("format") or "")
        node.pattern = _pattern(schema, where)
        node.limits = _limits(schema)
        node.list_map_keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        node.is_set = schema.get("x-kubernetes-list-type") == "set"
        node.has_default = "default" in schema
        node.default = schema.get("default")
        self._fill_object(node, schema, where, is_custom)
        if isinstance(schema.get("items"), dict):
            node.items = self._child(schema["items"], f"{where}.items", is_custom)
        node.choices = self._choices(schema, where, is_custom) if is_custom else ()

    def _fill_object(self, node: SchemaNode, schema: Mapping[str, Any], where: str, is_custom: bool) -> None:
        properties = schema.get("properties") or {}
        for name, child in properties.items():
            place = f"{where}.properties[{name}]"
            node.properties[name] = SchemaField(
                self._child(child, place, is_custom),
                frozenset(str(child.get("x-kubernetes-patch-strategy", "")).split(",")) - {""},
                str(child.get("x-kubernetes-patch-merge-key", "")),
            )
        node.required = tuple(schema.get("required") or ())
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            node.additional = self._child(additional, f"{where}.additionalProperties", is_custom)
        node.is_open = _is_open(schema, is_custom)
        if schema.get("x-kubernetes-embedded-resource"):
            node.required = (*node.required, "apiVersion", "kind")
            for name in ("apiVersion", "kind"):
                node.properties.setdefault(name, SchemaField(SchemaNode(types=frozenset(("string",)))))
            node.properties.setdefault("metadata", SchemaField(SchemaNode(types=frozenset(("object",)))))

    def _choices(
        self, schema: Mapping[str, Any], where: str, is_custom: bool
    ) -> tuple[tuple[str, tuple[SchemaNode, ...]], ...]:
        found: list[tuple[str, tuple[SchemaNode, ...]]] = []
        for word in _CHOICES:
            if isinstance(options := schema.get(word), list):
                nodes = [self._open(o, f"{where}.{word}[{i}]", is_custom) for i, o in enumerate(options)]
                found.append((word, tuple(nodes)))
        if isinstance(schema.get("not"), dict):
            found.append(("not", (self._open(schema["not"], f"{where}.not", is_custom),)))
        return tuple(found)

    def _open(self, schema: Any, where: str, is_custom: bool) -> SchemaNode:
        """An alternative only constrains: it neither closes the object nor forbids null. Source: structural schema rules."""
        node = self._child(schema, where, is_custom)
        _reopen(node)
        return node


def _reopen(node: SchemaNode) -> None:
    node.is_open = node.is_nullable = True
    for entry in node.properties.values():
        _reopen(entry.node)
    if node.items is not None:
        _reopen(node.items)
    if node.additional is not None:
        _reopen(node.additional)


def _types(schema: Mapping[str, Any], where: str) -> frozenset[str]:
    if schema.get("x-kubernetes-int-or-string"):
        return frozenset(("integer", "string"))
    asked = schema.get("type")
    names = {asked} if isinstance(asked, str) else set(asked or ())
    for option in (schema.get("oneOf") or ()) if "$ref" not in schema and asked is None else ():
        if isinstance(option, dict) and isinstance(option.get("type"), list):  # Kubernetes' IntOrString and Quantity.
            names |= set(option["type"])
    names.discard("null")
    if unknown := names - {"object", "array", "string", "integer", "number", "boolean"}:
        raise SchemaError(f"{where}.type: unknown type {min(unknown)!r}")
    return frozenset(names)


def _is_open(schema: Mapping[str, Any], is_custom: bool) -> bool:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    additional = schema.get("additionalProperties")
    if isinstance(additional, bool):
        return additional
    if isinstance(additional, dict):
        return False  # Every other field is covered by `additional`.
    if is_custom:
        return schema.get("type") != "object"
    return not schema.get("properties")


def _pattern(schema: Mapping[str, Any], where: str) -> re.Pattern[str] | None:
    if not (text := schema.get("pattern")):
        return None
    try:
        return re.compile(str(text))
    except re.error as exc:
        raise SchemaError(f"{where}.pattern: {text!r} is no regular expression: {exc}") from exc


def _limits(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    names = (*_NUMERIC_LIMITS, *_SIZE_LIMITS, "exclusiveMinimum", "exclusiveMaximum", "uniqueItems")
    return {name: schema[name] for name in names if schema.get(name) is not None}


def unsupported_keywords(schema: Any, where: str = "openAPIV3Schema") -> tuple[str, ...]:
    """Places in a schema whose rules are accepted and NOT enforced (CEL validations): worth a warning to the author."""
    found: list[str] = []
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in UNSUPPORTED and value:
                found.append(f"{where}.{key}")
            elif key in ("properties", "definitions") and isinstance(value, dict):
                for name, child in value.items():
                    found.extend(unsupported_keywords(child, f"{where}.{key}[{name}]"))
            elif key in ("items", "additionalProperties", "not"):
                found.extend(unsupported_keywords(value, f"{where}.{key}"))
    return tuple(found)
