"""The schemas of every kind: Kubernetes' own (from kubernetes-validate), Meshwork's, and those of CustomResourceDefinitions.

Entry points:
- `SchemaRegistry()`: cheap; the definitions (1.3 MB of JSON) are read at the first question, in a few ms.
- `validate(resource, obj) -> tuple[FieldError, ...]`: structure only; meaning is checked in `mesh.api.validation`. Errors with
  reason UNKNOWN are unknown fields: errors under fieldValidation=Strict, warnings under Warn, nothing under Ignore.
- `node(resource)`: for `mesh.api.strategic`.
- `set_custom(resource, schema)` and `remove_custom(resource)`: kinds of CustomResourceDefinitions.
- `prune(resource, obj)` and `apply_schema_defaults(resource, obj)`: for custom resources.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from mesh.api.errors import FieldError, SchemaError
from mesh.api.resources import Json, Resource
from mesh.api.schema_check import SchemaWalk
from mesh.api.schema_node import REF_PREFIX, SchemaCompiler, SchemaField, SchemaNode
from mesh.api.schema_own import OWN_SCHEMAS
from mesh.api.tree import copy_json

KUBERNETES_VERSION = "1.32.0"
"""Whose definitions are used."""
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_GVK = "x-kubernetes-group-version-kind"
_STRING = {"type": "string"}


def load_definitions() -> dict[str, Json]:
    """Kubernetes' definitions by name. Reads a data file of an installed package; 2 to 10 ms."""
    spec = find_spec("kubernetes_validate")  # Not importlib.resources: that imports the package, 90 ms.
    if spec is None or not spec.submodule_search_locations:
        raise SchemaError("kubernetes-validate is not installed: pip install kubernetes-validate")
    root = Path(spec.submodule_search_locations[0], "kubernetes-json-schema")
    data = root.joinpath(f"v{KUBERNETES_VERSION}-local", "_definitions.json").read_bytes()
    definitions: dict[str, Json] = msgspec.json.decode(data)["$defs"]
    return definitions


class SchemaRegistry:
    """Not for use by several threads."""

    def __init__(self) -> None:
        self._definitions: dict[str, Json] | None = None
        self._compiler: SchemaCompiler | None = None
        self._names: dict[tuple[str, str, str], str] = {}
        self._custom: dict[tuple[str, str, str], tuple[Json | None, SchemaNode]] = {}
        self._own: dict[tuple[str, str], SchemaNode] = {}

    @property
    def definitions(self) -> Mapping[str, Json]:
        """Kubernetes' definitions by name, JSON schema with `$ref` to `#/$defs/NAME`."""
        self._load()
        return self._definitions or {}

    def _load(self) -> SchemaCompiler:
        if self._compiler is None:
            self._definitions = load_definitions()
            self._compiler = SchemaCompiler(self._definitions)
            for name, schema in self._definitions.items():
                for gvk in schema.get(_GVK) or ():
                    self._names.setdefault((gvk["group"], gvk["version"], gvk["kind"]), name)
        return self._compiler

    def definition_name(self, resource: Resource) -> str | None:
        """The definition of a Kubernetes kind; None for Meshwork's own and custom kinds."""
        self._load()
        return self._names.get((resource.group, resource.version, resource.kind))

    def raw_schema(self, resource: Resource) -> Json | None:
        """The schema as written (without metadata for own and custom kinds), or None when the kind has none."""
        custom = self._custom.get(_place(resource))
        if custom is not None:
            return custom[0]
        if (own := OWN_SCHEMAS.get(resource.key)) is not None:
            return own
        name = self.definition_name(resource)
        return None if name is None else {"$ref": REF_PREFIX + name}

    def is_custom(self, resource: Resource) -> bool:
        """A kind of a CustomResourceDefinition."""
        return _place(resource) in self._custom

    def supports_strategic_patch(self, resource: Resource) -> bool:
        """Kubernetes' own kinds do; for others a strategic patch is answered with 415."""
        return not self.is_custom(resource) and resource.key not in OWN_SCHEMAS

    def set_custom(self, resource: Resource, schema: Json | None) -> None:
        """Serve a CustomResourceDefinition's kind; None accepts any fields. Raises SchemaError when the schema is unusable."""
        node = self._with_metadata(schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
        self._custom[_place(resource)] = (schema, node)

    def remove_custom(self, resource: Resource) -> None:
        """Forget a kind; nothing happens when it is unknown."""
        self._custom.pop(_place(resource), None)

    def node(self, resource: Resource) -> SchemaNode:
        """The compiled schema. Raises SchemaError for a kind that has none."""
        custom = self._custom.get(_place(resource))
        if custom is not None:
            return custom[1]
        if resource.key in OWN_SCHEMAS:
            if resource.key not in self._own:
                self._own[resource.key] = self._with_metadata(OWN_SCHEMAS[resource.key])
            return self._own[resource.key]
        name = self.definition_name(resource)
        if name is None:
            raise SchemaError(f"no schema for {resource.kind} in {resource.api_version}")
        return self._load().definition(name)

    def validate(self, resource: Resource, obj: Any) -> tuple[FieldError, ...]:
        """Everything in `obj` that its schema does not allow; () when it fits. About 0.1 ms for a 3 KB object."""
        walk = SchemaWalk(lenient=frozenset(("status",)))
        walk.check(self.node(resource), obj, "")
        return tuple(walk.errors)

    def prune(self, resource: Resource, obj: Json) -> Json:
        """A copy without unknown fields (what Kubernetes does under fieldValidation=Ignore and Warn)."""
        result: Json = _pruned(self.node(resource), obj)
        return result

    def apply_schema_defaults(self, resource: Resource, obj: Json) -> Json:
        """A copy with the schema's `default` values filled in. Only own and custom kinds have them."""
        result: Json = _defaulted(self.node(resource), obj)
        return result

    def _with_metadata(self, schema: Json) -> SchemaNode:
        compiler = self._load()
        node = compiler.compile(schema, "openAPIV3Schema", is_custom=True)
        if node.types and "object" not in node.types:
            raise SchemaError("openAPIV3Schema.type: must be object at the root")
        for name in ("apiVersion", "kind"):
            node.properties[name] = SchemaField(compiler.compile(_STRING, name))
        node.properties["metadata"] = SchemaField(compiler.definition(OBJECT_META))
        return node


def _place(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


def _pruned(node: SchemaNode, value: Any) -> Any:
    if isinstance(value, dict):
        result: Json = {}
        for name, child in value.items():
            entry = node.properties.get(name)
            known = entry.node if entry is not None else node.additional
            if known is not None:
                result[name] = _pruned(known, child)
            elif node.is_open:
                result[name] = copy_json(child)
        return result
    if isinstance(value, list):
        items = node.items
        return copy_json(value) if items is None else [_pruned(items, child) for child in value]
    return value


def _defaulted(node: SchemaNode, value: Any) -> Any:
    if isinstance(value, dict):
        result = dict(value)
        for name, entry in node.properties.items():
            child = entry.node
            missing = name not in result or (result[name] is None and not child.is_nullable)
            if missing and child.has_default:
                result[name] = copy_json(child.default)
        for name, item in result.items():
            known = node.properties.get(name)
            schema = known.node if known is not None else node.additional
            result[name] = copy_json(item) if schema is None else _defaulted(schema, item)
        return result
    if isinstance(value, list) and node.items is not None:
        items = node.items
        return [_defaulted(items, item) for item in value]
    return copy_json(value)
