import re
from typing import Any

import pytest

from mesh.api.codec import encode_json
from mesh.api.openapi import document_path, openapi_document, openapi_index
from mesh.api.resources import BUILTIN, DEPLOYMENTS, VIRTUAL_SERVICES, Json, Resource
from tests.unit.api.registry import registry

pytestmark = pytest.mark.unit
GVK = "x-kubernetes-group-version-kind"


def _document(group: str, version: str) -> Json:
    resources = [r for r in BUILTIN if (r.group, r.version) == (group, version)]
    return openapi_document(group, version, resources, registry())


def _patch_operations(document: Json, resource: Resource) -> list[Json]:
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    found = (item["patch"] for item in document["paths"].values() if "patch" in item)
    return [operation for operation in found if operation[GVK] == gvk]


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda r: r.plural)
def test_kubectl_finds_the_kind_and_its_field_validation(resource: Resource) -> None:
    document = _document(resource.group, resource.version)
    operations = _patch_operations(document, resource)
    assert operations
    assert all(any(p["name"] == "fieldValidation" for p in op["parameters"]) for op in operations)
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    assert any(gvk in schema.get(GVK, ()) for schema in document["components"]["schemas"].values())


@pytest.mark.parametrize("place", sorted({(r.group, r.version) for r in BUILTIN}))
def test_documents_are_complete_and_plain_openapi_3(place: tuple[str, str]) -> None:
    document = _document(*place)
    text = encode_json(document).decode()
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert references <= set(document["components"]["schemas"])
    assert "$defs" not in text
    assert '"null"' not in text


def test_references_with_siblings_are_wrapped_so_that_merge_strategies_are_read() -> None:
    spec: Any = _document("apps", "v1")["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]
    strategy = spec["properties"]["strategy"]
    assert strategy["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}]
    assert strategy["x-kubernetes-patch-strategy"] == "retainKeys"


def test_only_kubernetes_kinds_offer_strategic_patches() -> None:
    strategic = "application/strategic-merge-patch+json"
    for resource, expected in ((DEPLOYMENTS, True), (VIRTUAL_SERVICES, False)):
        [operation, *_] = _patch_operations(_document(resource.group, resource.version), resource)
        assert (strategic in operation["requestBody"]["content"]) is expected


def test_index_lists_documents_with_their_hash() -> None:
    index = openapi_index({document_path("apps", "v1"): "AB", document_path("", "v1"): "CD"})
    assert index["paths"]["apis/apps/v1"] == {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=AB"}
    assert "api/v1" in index["paths"]
