"""OpenAPI v3 documents, one per group version, from the schemas: what kubectl's apply, create, explain and diff read.

Entry points: `document_path(group, version)`, `openapi_document(group, version, resources, registry)` and `openapi_index(hashes)`.
Source: kubernetes/kube-openapi's published shape; kubectl looks for `patch` operations with x-kubernetes-group-version-kind and the
query parameter fieldValidation, and for components with the same extension.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.api.resources import Json, Resource
from mesh.api.schema import KUBERNETES_VERSION, OBJECT_META, SchemaRegistry
from mesh.api.schema_node import REF_PREFIX

_GVK = "x-kubernetes-group-version-kind"
_COMPONENT = "#/components/schemas/"
_JSON = "application/json"
_PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_FIELD_VALIDATION = (
    "What to do about unknown and duplicate fields: Strict (refuse), Warn (drop and warn) or Ignore (drop)."
)


def document_path(group: str, version: str) -> str:
    """`api/v1` or `apis/apps/v1`: the key in the index and the path after /openapi/v3/."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def openapi_index(hashes: Mapping[str, str]) -> Json:
    """The answer to GET /openapi/v3. `hashes`: document path -> hash of the document, so that kubectl may cache it."""
    return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}?hash={h}"} for p, h in sorted(hashes.items())}}


def openapi_document(group: str, version: str, resources: Iterable[Resource], registry: SchemaRegistry) -> Json:
    """The document of one group version, for `resources` (all of that group version). 5 to 40 ms: cache it by
    the registry's changes."""
    paths: Json = {}
    components = _Components(registry)
    for resource in resources:
        component = components.add_kind(resource)
        strategic = registry.supports_strategic_patch(resource)
        paths.update(_paths(resource, component, supports_strategic=strategic))
    return {
        "openapi": "3.0.0",
        "info": {"title": f"Meshwork {document_path(group, version)}", "version": f"v{KUBERNETES_VERSION}"},
        "paths": paths,
        "components": {"schemas": components.schemas},
    }


class _Components:
    """The schemas a document holds: the kinds and everything they refer to."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self.schemas: dict[str, Json] = {}

    def add_kind(self, resource: Resource) -> str:
        """Add a kind; answers its component's name."""
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        name = self._registry.definition_name(resource)
        if name is None or self._registry.is_custom(resource):
            name = _component_name(resource)
            schema = self._registry.raw_schema(resource) or {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
            }
            self.schemas[name] = _with_type_fields(schema)
            self._add(OBJECT_META)
        else:
            self._add(name)
        self.schemas[name][_GVK] = [gvk]
        return name

    def _add(self, name: str) -> None:
        if name in self.schemas:
            return
        found: list[str] = []
        self.schemas[name] = {}
        self.schemas[name].update(_converted(self._registry.definitions[name], found))
        for other in found:
            self._add(other)


def _component_name(resource: Resource) -> str:
    """`io.istio.networking.v1.VirtualService`."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _with_type_fields(schema: Json) -> Json:
    texts = {"type": "string"}
    properties = {
        "apiVersion": {**texts, "description": "Group and version of the schema."},
        "kind": {**texts, "description": "Kind of the object."},
        "metadata": {"description": "Standard object metadata.", "allOf": [{"$ref": _COMPONENT + OBJECT_META}]},
    }
    return {**schema, "properties": {**(schema.get("properties") or {}), **properties}}


def _converted(schema: Any, found: list[str]) -> Any:
    """JSON schema to OpenAPI 3.0: no "null" types, references to components, and `allOf` where a reference has siblings."""
    if isinstance(schema, list):
        return [_converted(item, found) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: Json = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            name = value.removeprefix(REF_PREFIX)
            found.append(name)
            result["$ref"] = _COMPONENT + name
        elif key == "type" and isinstance(value, list):
            result["type"] = next(t for t in value if t != "null")
        elif key == "properties":
            result[key] = {name: _converted(child, found) for name, child in value.items()}
        elif key in ("description", "enum", "required") or key.startswith("x-"):
            result[key] = value
        else:
            result[key] = _converted(value, found)
    if len(result) > 1 and "$ref" in result:
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result


def _paths(resource: Resource, component: str, *, supports_strategic: bool) -> Json:
    operations = _Operations(resource, component, supports_strategic=supports_strategic)
    collection = resource.collection_path("{namespace}" if resource.is_namespaced else None)
    paths: Json = {
        collection: operations.collection(),
        f"{collection}/{{name}}": operations.item(""),
    }
    if resource.is_namespaced:
        paths[resource.collection_path()] = operations.collection_of_all()
    for subresource in resource.subresources:
        if subresource in ("status", "scale"):
            paths[f"{collection}/{{name}}/{subresource}"] = operations.item(subresource)
    return paths


class _Operations:
    """The operations on one kind."""

    def __init__(self, resource: Resource, component: str, *, supports_strategic: bool) -> None:
        self._resource = resource
        self._schema = {"$ref": _COMPONENT + component}
        self._patch_types = (*_PATCH_TYPES, _STRATEGIC) if supports_strategic else _PATCH_TYPES

    def collection(self) -> Json:
        return {
            "get": self._operation("list", ()),
            "post": self._operation("post", ("dryRun", "fieldManager", "fieldValidation"), body=(_JSON,)),
            "delete": self._operation("deletecollection", ("dryRun",)),
            "parameters": self._path_parameters(),
        }

    def collection_of_all(self) -> Json:
        return {"get": self._operation("list", ())}

    def item(self, subresource: str) -> Json:
        written = ("dryRun", "fieldManager", "fieldValidation")
        result: Json = {
            "get": self._operation("get", ()),
            "put": self._operation("put", written, body=(_JSON,)),
            "patch": self._operation("patch", (*written, "force"), body=self._patch_types),
            "parameters": [*self._path_parameters(), _parameter("name", "path", required=True)],
        }
        if not subresource:
            result["delete"] = self._operation("delete", ("dryRun", "gracePeriodSeconds", "propagationPolicy"))
        return result

    def _path_parameters(self) -> list[Json]:
        return [_parameter("namespace", "path", required=True)] if self._resource.is_namespaced else []

    def _operation(self, action: str, query: tuple[str, ...], body: tuple[str, ...] = ()) -> Json:
        resource = self._resource
        operation: Json = {
            "parameters": [_parameter(name, "query") for name in query],
            "responses": {"200": {"description": "OK", "content": {_JSON: {"schema": self._schema}}}},
            "x-kubernetes-action": action,
            _GVK: {"group": resource.group, "version": resource.version, "kind": resource.kind},
        }
        if body:
            operation["requestBody"] = {"content": {kind: {"schema": self._schema} for kind in body}, "required": True}
        return operation


def _parameter(name: str, place: str, *, required: bool = False) -> Json:
    parameter: Json = {"name": name, "in": place, "schema": {"type": "string", "uniqueItems": True}}
    if name == "fieldValidation":
        parameter["description"] = _FIELD_VALIDATION
    if required:
        parameter["required"] = True
    return parameter
