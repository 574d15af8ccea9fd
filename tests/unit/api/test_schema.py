from typing import Any

import msgspec
import pytest
from hypothesis import given

from mesh.api.errors import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, TYPE_INVALID, UNKNOWN, SchemaError
from mesh.api.gateway import HttpRoute
from mesh.api.meta import View
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.node import HostImage
from mesh.api.resources import (
    BUILTIN,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DESTINATION_RULES,
    ENDPOINT_SLICES,
    HOST_IMAGES,
    HTTP_ROUTES,
    NAMESPACES,
    PODS,
    SECRETS,
    TRAFFIC_LIMITS,
    VIRTUAL_SERVICES,
    Json,
    Resource,
)
from mesh.api.schema import SchemaRegistry
from mesh.api.schema_node import unsupported_keywords
from mesh.api.schema_own import OWN_SCHEMAS
from mesh.api.traffic_limit import TrafficLimit
from tests.unit.api.json_values import OBJECTS
from tests.unit.api.registry import registry

pytestmark = pytest.mark.unit

WIDGETS = Resource(group="example.com", version="v1", plural="widgets", kind="Widget", is_namespaced=True)


def _pod(**container: Any) -> Json:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda r: r.plural)
def test_every_builtin_kind_has_a_schema_that_knows_metadata(resource: Resource) -> None:
    assert "metadata" in registry().node(resource).properties
    assert registry().supports_strategic_patch(resource) is (resource.key not in OWN_SCHEMAS)


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (PODS, _pod(name="a", image="x"), []),
        (PODS, _pod(name="a", imag="x"), [("spec.containers[0].imag", UNKNOWN)]),
        (PODS, _pod(image="x"), [("spec.containers[0].name", REQUIRED)]),
        (PODS, _pod(name=3), [("spec.containers[0].name", TYPE_INVALID)]),
        (PODS, _pod(name="a", ports=[{"containerPort": "80"}]), [("spec.containers[0].ports[0].containerPort", TYPE_INVALID)]),
        (PODS, _pod(name="a", ports=[{"containerPort": 80.0}]), []),
        (PODS, _pod(name="a", ports=[{"containerPort": 2**31}]), [("spec.containers[0].ports[0].containerPort", INVALID)]),
        (PODS, _pod(name="a", ports={}), [("spec.containers[0].ports", TYPE_INVALID)]),
        (PODS, _pod(name="a", ports=None, resources={"limits": {"cpu": 1, "memory": "1Gi"}}), []),
        (PODS, _pod(name="a", stdin="yes"), [("spec.containers[0].stdin", TYPE_INVALID)]),
        (PODS, _pod(name="a", livenessProbe={"httpGet": {"port": "http"}}), []),
        (PODS, _pod(name="a", livenessProbe={"httpGet": {"port": 1.5}}), [("spec.containers[0].livenessProbe.httpGet.port", TYPE_INVALID)]),
        (PODS, {"spec": None, "status": {"containerStatuses": [{"name": "a"}]}}, []),
        (PODS, {"spec": {"containers": None}}, [("spec.containers", REQUIRED)]),
        (PODS, [], [("", TYPE_INVALID)]),
        (PODS, {"metadata": {"labels": {"a": 1}, "creationTimestamp": None}}, [("metadata.labels.a", TYPE_INVALID)]),
        (PODS, {"metadata": {"creationTimestamp": "yesterday"}}, [("metadata.creationTimestamp", INVALID)]),
        (DEPLOYMENTS, {"spec": {"replicas": "three", "selector": {}, "template": {}}}, [("spec.replicas", TYPE_INVALID)]),
        (DEPLOYMENTS, {"spec": {}}, [("spec.selector", REQUIRED), ("spec.template", REQUIRED)]),
        (CONFIG_MAPS, {"data": {"a.b": "x", "n": None}}, []),
        (SECRETS, {"data": {"a": "%%%"}}, [("data.a", INVALID)]),
        (NAMESPACES, {"metadata": {"annotations": {"x.y/z": True}}}, [("metadata.annotations[x.y/z]", TYPE_INVALID)]),
        (ENDPOINT_SLICES, {"addressType": "IPv4", "endpoints": []}, []),
        (HOST_IMAGES, {"spec": {"match": ["demo:*"], "command": ["python3"]}}, []),
        (HOST_IMAGES, {"spec": {"match": []}}, [("spec.match", INVALID)]),
        (HOST_IMAGES, {"spec": {}}, [("spec.match", REQUIRED)]),
        (VIRTUAL_SERVICES, {"spec": {"hosts": ["a"], "http": [{"faults": {}}]}}, [("spec.http[0].faults", UNKNOWN)]),
        (VIRTUAL_SERVICES, {"spec": {"hosts": ["a"], "http": [{"timeout": "5"}]}}, [("spec.http[0].timeout", INVALID)]),
        (DESTINATION_RULES, {"spec": {"host": "a", "subsets": [{"name": "x"}] * 2}}, [("spec.subsets[1]", DUPLICATE)]),
        (
            DESTINATION_RULES,
            {"spec": {"host": "a", "trafficPolicy": {"loadBalancer": {"simple": "FASTEST"}}}},
            [("spec.trafficPolicy.loadBalancer.simple", NOT_SUPPORTED)],
        ),
    ],
)  # fmt: skip
def test_structure_is_checked_with_field_paths(resource: Resource, obj: Any, expected: list[tuple[str, str]]) -> None:
    assert [(e.path, e.reason) for e in registry().validate(resource, obj)] == expected


def test_unknown_field_suggests_the_nearest_name() -> None:
    [error] = registry().validate(PODS, _pod(name="a", imagePullPolcy="Always"))
    assert error.message == 'unknown field "spec.containers[0].imagePullPolcy" (did you mean "imagePullPolicy"?)'


def test_hostile_object_yields_a_bounded_number_of_errors() -> None:
    assert len(registry().validate(PODS, {f"f{i}": i for i in range(10_000)})) <= 10_000
    assert len(registry().validate(PODS, {"spec": {"containers": [{}] * 10_000}})) <= 101


@given(OBJECTS)
def test_any_json_is_answered_with_errors_not_exceptions(obj: Json) -> None:
    for resource in (PODS, VIRTUAL_SERVICES):
        registry().validate(resource, {"spec": obj, "metadata": obj, **obj})


SCHEMA: Json = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                "share": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "note": {"type": "string", "nullable": True},
                "one": {
                    "type": "object",
                    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
                "ranks": {"type": "array", "items": {"type": "number"}, "uniqueItems": True},
            },
        }
    },
}


def _widgets() -> SchemaRegistry:
    fresh = SchemaRegistry()
    fresh.set_custom(WIDGETS, SCHEMA)
    return fresh


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (
            {
                "size": 3,
                "color": "blue",
                "code": "ab",
                "share": "5%",
                "free": {"x": 1},
                "note": None,
                "one": {"a": "x"},
            },
            None,
        ),
        ({}, "spec.size"),
        ({"size": 0}, "spec.size"),
        ({"size": 10}, "spec.size"),
        ({"size": 1, "color": "green"}, "spec.color"),
        ({"size": 1, "code": "abcd"}, "spec.code"),
        ({"size": 1, "code": "A"}, "spec.code"),
        ({"size": 1, "code": None}, "spec.code"),
        ({"size": 1, "share": 1.5}, "spec.share"),
        ({"size": 1, "extra": 1}, "spec.extra"),
        ({"size": 1, "one": {"a": "x", "b": "y"}}, "spec.one"),
        ({"size": 1, "one": {}}, "spec.one"),
        ({"size": 1, "ranks": [1, 2, 1]}, "spec.ranks[2]"),
    ],
)
def test_custom_resources_are_checked_by_their_own_schema(spec: Json, path: str | None) -> None:
    errors = _widgets().validate(
        WIDGETS, {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {}, "spec": spec}
    )
    assert [e.path for e in errors] == ([] if path is None else [path])


def test_custom_resources_are_defaulted_and_pruned_by_their_schema() -> None:
    obj = {"metadata": {"name": "w", "odd": 1}, "spec": {"size": 1, "extra": 2, "free": {"x": {"y": 1}}}, "more": 3}
    defaulted = _widgets().apply_schema_defaults(WIDGETS, obj)
    assert defaulted["spec"]["color"] == "red"
    assert _widgets().prune(WIDGETS, obj) == {
        "metadata": {"name": "w"},
        "spec": {"size": 1, "free": {"x": {"y": 1}}},
    }


def test_kind_without_schema_takes_any_fields_and_forgotten_kinds_are_unknown() -> None:
    fresh = SchemaRegistry()
    fresh.set_custom(WIDGETS, None)
    assert fresh.validate(WIDGETS, {"metadata": {"name": "w"}, "anything": [1]}) == ()
    fresh.remove_custom(WIDGETS)
    with pytest.raises(SchemaError, match="no schema for Widget"):
        fresh.validate(WIDGETS, {})


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "string"}, "must be object"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, r"properties\[a\].type: unknown type"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "no regular expression"),
        ({"type": "object", "properties": {"a": {"$ref": "#/x"}}}, "without references"),
        ({"type": "object", "properties": {"a": 3}}, "must be an object"),
    ],
)
def test_unusable_schemas_are_refused(schema: Json, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        SchemaRegistry().set_custom(WIDGETS, schema)


def test_rules_that_are_not_enforced_are_named() -> None:
    schema = {"properties": {"spec": {"x-kubernetes-validations": [{"rule": "self.a > 1"}]}}}
    assert unsupported_keywords(schema) == ("openAPIV3Schema.properties[spec].x-kubernetes-validations",)


def _fields(view: type[View]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(view)}


def _views_in(annotation: Any) -> list[type[View]]:
    if isinstance(annotation, type) and issubclass(annotation, View):
        return [annotation]
    return [view for part in getattr(annotation, "__args__", ()) for view in _views_in(part)]


def _compare(view: type[View], schema: Json, path: str) -> None:
    properties = schema["properties"]
    fields = _fields(view)
    if not path:
        fields = {name: fields[name] for name in fields if name not in ("apiVersion", "kind", "metadata")}
    if view.__name__ == "EnvVar":
        fields = {name: fields[name] for name in ("name", "value")}
    assert set(fields) == set(properties), path
    for name, annotation in fields.items():
        for inner in _views_in(annotation):
            child = properties[name]
            child = child.get("items") or child.get("additionalProperties") or child
            _compare(inner, child, f"{path}.{name}")


@pytest.mark.parametrize(
    ("resource", "view"),
    [
        (HOST_IMAGES, HostImage),
        (VIRTUAL_SERVICES, VirtualService),
        (DESTINATION_RULES, DestinationRule),
        (HTTP_ROUTES, HttpRoute),
        (TRAFFIC_LIMITS, TrafficLimit),
    ],
)
def test_own_schemas_name_exactly_the_fields_of_the_views(resource: Resource, view: type[View]) -> None:
    _compare(view, OWN_SCHEMAS[resource.key], "")
