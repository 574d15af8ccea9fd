"""CustomResourceDefinitions while the server runs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh.api.resources import Json
from mesh.net.loop import run
from tests.component.apiserver_harness import STRATEGIC, TABLE, api_server

pytestmark = pytest.mark.component

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRONS = "/apis/stable.example.com/v1/namespaces/default/crons"


def crd(**changes: Any) -> Json:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "string"},
                            "replicas": {"type": "integer", "minimum": 1, "default": 1},
                        },
                    },
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                },
            }
        },
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [{"name": "Image", "type": "string", "jsonPath": ".spec.image"}],
    }
    spec = {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": "crons", "kind": "Cron", "shortNames": ["ct"]},
        "versions": [version],
        **changes,
    }
    return {"metadata": {"name": "crons.stable.example.com"}, "spec": spec}


def cron(name: str = "one", **spec: Any) -> Json:
    return {"apiVersion": "stable.example.com/v1", "kind": "Cron", "metadata": {"name": name}, "spec": spec}


def test_a_definition_serves_its_kind_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            assert (await api.admin("GET", CRONS)).status == 404
            made = await api.admin.created(CRDS, crd())
            established = {c["type"]: c["status"] for c in made["status"]["conditions"]}
            assert established == {"NamesAccepted": "True", "Established": "True"}
            assert (await api.admin("GET", CRONS)).body["items"] == []
            paths = (await api.admin("GET", "/openapi/v3")).body["paths"]
            assert "apis/stable.example.com/v1" in paths
            resources = (await api.admin("GET", "/apis/stable.example.com/v1")).body["resources"]
            assert [r["name"] for r in resources] == ["crons", "crons/status", "crons/scale"]

    run(check())


def test_instances_are_validated_defaulted_scaled_and_shown(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(CRDS, crd())
            made = await api.admin.created(CRONS, cron(image="x"))
            assert made["spec"]["replicas"] == 1
            missing = await api.admin("POST", CRONS, cron("two"))
            assert (missing.status, missing.fields) == (422, ["spec.image"])
            wrong = await api.admin("POST", CRONS, cron("two", image="x", replicas=0))
            assert wrong.fields == ["spec.replicas"]
            strict = await api.admin("POST", f"{CRONS}?fieldValidation=Strict", cron("two", image="x", imag="y"))
            assert strict.status == 400
            assert (await api.admin.patch(f"{CRONS}/one/scale", {"spec": {"replicas": 3}})).status == 200
            assert (await api.admin("GET", f"{CRONS}/one")).body["spec"]["replicas"] == 3
            assert (await api.admin.patch(f"{CRONS}/one", {}, STRATEGIC)).status == 415
            table = (await api.admin("GET", CRONS, Accept=TABLE)).body
            assert table["rows"][0]["cells"] == ["one", "x"]
            status = await api.admin.patch(f"{CRONS}/one/status", {"status": {"replicas": 3}, "spec": {"image": "z"}})
            assert (status.body["status"], status.body["spec"]["image"]) == ({"replicas": 3}, "x")

    run(check())


def test_definitions_and_instances_survive_a_restart(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(CRDS, crd())
            made = await api.admin.created(CRONS, cron(image="x"))
        async with api_server(tmp_path) as api:
            assert (await api.admin("GET", f"{CRONS}/one")).body == made
            assert (await api.admin("POST", CRONS, cron("two"))).status == 422

    run(check())


def test_deleting_a_definition_deletes_its_instances(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(CRDS, crd())
            await api.admin.created(CRONS, cron(image="x"))
            assert (await api.admin("DELETE", f"{CRDS}/crons.stable.example.com")).status == 200
            async with asyncio.timeout(10):
                while (await api.admin("GET", f"{CRDS}/crons.stable.example.com")).status != 404:
                    await asyncio.sleep(0.01)
            assert (await api.admin("GET", CRONS)).status == 404
            again = await api.admin.created(CRDS, crd())
            assert again["metadata"]["uid"]
            assert (await api.admin("GET", CRONS)).body["items"] == []

    run(check())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"group": "other.example.com"}, "metadata.name"),
        ({"scope": "Galaxy"}, "spec.scope"),
        ({"versions": []}, "spec.versions"),
        ({"names": {"kind": "Cron"}}, "spec.names.plural"),
    ],
)
def test_definitions_that_make_no_sense(tmp_path: Path, changes: Json, field: str) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            answer = await api.admin("POST", CRDS, crd(**changes))
            assert answer.status == 422
            assert field in answer.fields

    run(check())


def test_a_definition_cannot_take_a_built_in_kinds_place(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            taken = crd(group="networking.istio.io", names={"plural": "virtualservices", "kind": "VirtualService"})
            taken["metadata"]["name"] = "virtualservices.networking.istio.io"
            answer = await api.admin("POST", CRDS, taken)
            assert answer.status == 422
            assert "served already" in answer.message

    run(check())
