"""create, get, update, patch and delete through the API, with what they refuse."""

import asyncio
from pathlib import Path

import pytest

from controlplane.apiserver.admission import AdmissionRequest
from mesh.api.resources import PODS as POD_RESOURCE
from mesh.api.resources import Json
from mesh.net.loop import run
from tests.component.apiserver_harness import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JSON_PATCH,
    MERGE,
    PODS,
    STRATEGIC,
    api_server,
    config_map,
    deployment,
    pod,
)

pytestmark = pytest.mark.component


def test_create_sets_identity_defaults_and_generation(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await api.admin.created(DEPLOYMENTS, deployment("web"))
            metadata = made["metadata"]
            assert metadata["uid"]
            assert metadata["creationTimestamp"].endswith("Z")
            assert metadata["generation"] == 1
            assert made["spec"]["strategy"]["type"] == "RollingUpdate"
            assert made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
            got = await api.admin("GET", f"{DEPLOYMENTS}/web")
            assert got.body == made
            again = await api.admin("POST", DEPLOYMENTS, deployment("web"))
            assert (again.status, again.body["reason"]) == (409, "AlreadyExists")

    run(check())


def test_generate_name_gives_each_object_its_own(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            template: Json = {"metadata": {"generateName": "cm-"}}
            names = {(await api.admin.created(CONFIG_MAPS, template))["metadata"]["name"] for _ in range(5)}
            assert len(names) == 5
            assert all(name.startswith("cm-") and len(name) == 8 for name in names)

    run(check())


def test_an_update_with_an_old_resource_version_conflicts(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await api.admin.created(CONFIG_MAPS, config_map("a", x="1"))
            first = await api.admin("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"x": "2"}})
            assert first.status == 200
            second = await api.admin("PUT", f"{CONFIG_MAPS}/a", {**made, "data": {"x": "3"}})
            assert (second.status, second.body["reason"]) == (409, "Conflict")
            assert "modified" in second.message
            unconditional = await api.admin("PUT", f"{CONFIG_MAPS}/a", config_map("a", x="4"))
            assert unconditional.body["data"] == {"x": "4"}
            assert unconditional.body["metadata"]["uid"] == made["metadata"]["uid"]

    run(check())


def test_an_update_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await api.admin.created(CONFIG_MAPS, config_map("a", x="1"))
            before = api.store.revision
            same = await api.admin("PUT", f"{CONFIG_MAPS}/a", config_map("a", x="1"))
            assert same.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            assert api.store.revision == before

    run(check())


def test_patches_that_race_all_take_effect(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(CONFIG_MAPS, config_map("a"))
            patches = [api.admin.patch(f"{CONFIG_MAPS}/a", {"data": {f"k{n}": "v"}}) for n in range(12)]
            answers = await asyncio.gather(*patches)
            assert [answer.status for answer in answers] == [200] * 12
            got = await api.admin("GET", f"{CONFIG_MAPS}/a")
            assert len(got.body["data"]) == 12

    run(check())


def test_the_three_patch_types(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            path = f"{DEPLOYMENTS}/web"
            await api.admin.created(DEPLOYMENTS, deployment("web"))
            merged = await api.admin.patch(path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
            assert merged.body["metadata"]["labels"] == {"a": "b"}
            assert merged.body["metadata"]["generation"] == 1
            container = {"name": "side", "image": "envoy"}
            strategic = await api.admin.patch(
                path, {"spec": {"template": {"spec": {"containers": [container]}}}}, STRATEGIC
            )
            names = [c["name"] for c in strategic.body["spec"]["template"]["spec"]["containers"]]
            assert sorted(names) == ["c", "side"]
            assert strategic.body["metadata"]["generation"] == 2
            operations = [{"op": "replace", "path": "/spec/replicas", "value": 7}]
            json_patched = await api.admin.patch(path, operations, JSON_PATCH)
            assert json_patched.body["spec"]["replicas"] == 7

    run(check())


def test_patches_that_cannot_be_applied(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            path = f"{DEPLOYMENTS}/web"
            await api.admin.created(DEPLOYMENTS, deployment("web"))
            failed = await api.admin.patch(path, [{"op": "test", "path": "/spec/replicas", "value": 9}], JSON_PATCH)
            assert failed.status == 422
            nowhere = await api.admin.patch(path, [{"op": "remove", "path": "/spec/nothing"}], JSON_PATCH)
            assert nowhere.status == 400
            apply = await api.admin.patch(path, {}, "application/apply-patch+yaml")
            assert (apply.status, apply.body["reason"]) == (415, "UnsupportedMediaType")
            renamed = await api.admin.patch(path, {"metadata": {"name": "other"}}, MERGE)
            assert renamed.status == 400
            got = await api.admin("GET", path)
            assert got.body["metadata"]["generation"] == 1

    run(check())


def test_spec_and_status_are_written_apart(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            path = f"{DEPLOYMENTS}/web"
            obj = deployment("web")
            obj["status"] = {"replicas": 9}
            made = await api.admin.created(DEPLOYMENTS, obj)
            assert "status" not in made
            through_status = await api.admin.patch(
                f"{path}/status", {"spec": {"replicas": 5}, "status": {"replicas": 3}}
            )
            assert through_status.body["status"] == {"replicas": 3}
            assert through_status.body["spec"]["replicas"] == 2
            assert through_status.body["metadata"]["generation"] == 1
            through_main = await api.admin.patch(path, {"spec": {"replicas": 5}, "status": {"replicas": 8}})
            assert through_main.body["status"] == {"replicas": 3}
            assert through_main.body["spec"]["replicas"] == 5

    run(check())


def test_unknown_fields_by_field_validation(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            obj = deployment("web")
            obj["spec"]["replicass"] = 3
            strict = await api.admin("POST", f"{DEPLOYMENTS}?fieldValidation=Strict", obj)
            assert strict.status == 400
            assert 'unknown field "spec.replicass"' in strict.message
            warned = await api.admin("POST", f"{DEPLOYMENTS}?fieldValidation=Warn&dryRun=All", obj)
            assert warned.status == 201
            assert warned.warnings == ['299 - "unknown field \\"spec.replicass\\" (did you mean \\"replicas\\"?)"']
            ignored = await api.admin("POST", f"{DEPLOYMENTS}?fieldValidation=Ignore&dryRun=All", obj)
            assert (ignored.status, ignored.warnings) == (201, [])
            wrong = await api.admin("POST", f"{DEPLOYMENTS}?fieldValidation=Maybe", obj)
            assert wrong.status == 400

    run(check())


def test_wrong_types_and_meaningless_objects_name_the_field(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            typed = deployment("web")
            typed["spec"]["replicas"] = "two"
            answer = await api.admin("POST", DEPLOYMENTS, typed)
            assert (answer.status, answer.fields) == (422, ["spec.replicas"])
            unmatched = deployment("web")
            unmatched["spec"]["selector"]["matchLabels"] = {"app": "other"}
            answer = await api.admin("POST", DEPLOYMENTS, unmatched)
            assert answer.status == 422
            assert any(field.startswith("spec.template.metadata.labels") for field in answer.fields)
            assert (await api.admin("GET", f"{DEPLOYMENTS}/web")).status == 404

    run(check())


def test_metadata_is_checked_when_only_it_changes(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            path = f"{DEPLOYMENTS}/web"
            await api.admin.created(DEPLOYMENTS, deployment("web"))
            for labels in ({"a": 1}, {"a": "not a label!"}, {"-": "x"}):
                refused = await api.admin.patch(path, {"metadata": {"labels": labels}})
                assert (refused.status, refused.body["reason"]) == (422, "Invalid"), labels
                assert all(field.startswith("metadata.labels") for field in refused.fields)
            strict = await api.admin.patch(f"{path}?fieldValidation=Strict", {"metadata": {"lables": {"a": "b"}}})
            assert strict.status == 400
            kept = (await api.admin.patch(path, {"metadata": {"labels": {"a": "b"}}})).body
            assert kept["metadata"]["generation"] == 1

    run(check())


def test_bodies_that_are_no_objects(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path, max_body_bytes=2000) as api:
            broken = await api.admin("POST", CONFIG_MAPS, b'{"metadata": {"name": "a"},\n "data": }')
            assert broken.status == 400
            assert "line 2" in broken.message
            assert (await api.admin("POST", CONFIG_MAPS, b"[1]")).status == 400
            assert (await api.admin("POST", CONFIG_MAPS, b"")).status == 400
            twice = await api.admin(
                "POST", f"{CONFIG_MAPS}?fieldValidation=Strict", b'{"metadata":{"name":"a"},"data":{"x":"1","x":"2"}}'
            )
            assert twice.status == 400
            assert '"x"' in twice.message
            large = await api.admin("POST", CONFIG_MAPS, config_map("a", x="y" * 3000))
            assert (large.status, large.body["reason"]) == (413, "RequestEntityTooLarge")
            text = await api.admin("POST", CONFIG_MAPS, b"hello", Content_Type="text/plain")
            assert text.status == 415
            other = await api.admin("POST", CONFIG_MAPS, pod("p"))
            assert other.status == 400
            yaml = await api.admin(
                "POST",
                CONFIG_MAPS,
                b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n",
                Content_Type="application/yaml",
            )
            assert yaml.status == 201

    run(check())


def test_dry_run_answers_and_stores_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            before = api.store.revision
            assert (await api.admin("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))).status == 201
            assert api.store.revision == before
            await api.admin.created(CONFIG_MAPS, config_map("a", x="1"))
            changed = await api.admin("PUT", f"{CONFIG_MAPS}/a?dryRun=All", config_map("a", x="2"))
            assert changed.body["data"] == {"x": "2"}
            assert (await api.admin("DELETE", f"{CONFIG_MAPS}/a?dryRun=All")).status == 200
            got = await api.admin("GET", f"{CONFIG_MAPS}/a")
            assert got.body["data"] == {"x": "1"}

    run(check())


def test_names_that_could_mean_other_keys_are_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            for name in ("a/b", "..", "a%2fb", ""):
                answer = await api.admin("POST", CONFIG_MAPS, config_map(name))
                assert answer.status == 422, name
            assert (await api.admin("GET", f"{CONFIG_MAPS}/a%2Fb")).status == 400

    run(check())


def test_a_bound_pod_is_deleted_gracefully_and_others_at_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(PODS, pod("p"))
            target = {"target": {"kind": "Node", "name": "node-1"}}
            assert (await api.admin("POST", f"{PODS}/p/binding", target)).status == 201
            assert (await api.admin("POST", f"{PODS}/p/binding", target)).status == 409
            bound = (await api.admin("GET", f"{PODS}/p")).body
            assert bound["spec"]["nodeName"] == "node-1"
            assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
            marked = (await api.admin("DELETE", f"{PODS}/p")).body
            assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
            wrong = {"preconditions": {"uid": "other"}, "gracePeriodSeconds": 0}
            assert (await api.admin("DELETE", f"{PODS}/p", wrong)).status == 409
            gone = await api.admin("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
            assert gone.body["status"] == "Success"
            assert (await api.admin("GET", f"{PODS}/p")).status == 404
            await api.admin.created(PODS, pod("q"))
            assert (await api.admin("DELETE", f"{PODS}/q")).body["status"] == "Success"

    run(check())


def test_finalizers_hold_an_object_until_the_last_is_taken_away(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            obj = config_map("a")
            obj["metadata"]["finalizers"] = ["example.com/one"]
            await api.admin.created(CONFIG_MAPS, obj)
            marked = (await api.admin("DELETE", f"{CONFIG_MAPS}/a")).body
            assert marked["metadata"]["deletionTimestamp"]
            assert (await api.admin("GET", f"{CONFIG_MAPS}/a")).status == 200
            await api.admin.patch(f"{CONFIG_MAPS}/a", {"metadata": {"finalizers": None}})
            assert (await api.admin("GET", f"{CONFIG_MAPS}/a")).status == 404

    run(check())


def test_propagation_policies_become_finalizers(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
                await api.admin.created(DEPLOYMENTS, deployment(policy.lower()))
                path = f"{DEPLOYMENTS}/{policy.lower()}"
                marked = (await api.admin("DELETE", path, {"propagationPolicy": policy})).body
                assert marked["metadata"]["finalizers"] == [finalizer]
            await api.admin.created(DEPLOYMENTS, deployment("background"))
            gone = await api.admin("DELETE", f"{DEPLOYMENTS}/background", {"propagationPolicy": "Background"})
            assert gone.body["status"] == "Success"
            assert (await api.admin("DELETE", f"{DEPLOYMENTS}/orphan", {"propagationPolicy": "No"})).status == 400

    run(check())


def test_delete_collection_takes_what_the_selector_matches(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            for name in ("a", "b", "c"):
                obj = config_map(name)
                obj["metadata"]["labels"] = {"keep": "yes" if name == "c" else "no"}
                await api.admin.created(CONFIG_MAPS, obj)
            assert (await api.admin("DELETE", f"{CONFIG_MAPS}?labelSelector=keep%3Dno")).status == 200
            left = (await api.admin("GET", CONFIG_MAPS)).body["items"]
            assert [one["metadata"]["name"] for one in left] == ["c"]

    run(check())


def test_nothing_is_created_in_a_missing_or_leaving_namespace(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            missing = await api.admin("POST", "/api/v1/namespaces/nope/configmaps", config_map("a"))
            assert (missing.status, missing.message) == (404, 'namespaces "nope" not found')
            await api.admin.created("/api/v1/namespaces", {"metadata": {"name": "x"}})
            leaving = (await api.admin("DELETE", "/api/v1/namespaces/x")).body
            assert leaving["status"]["phase"] == "Terminating"
            late = await api.admin("POST", "/api/v1/namespaces/x/configmaps", config_map("a"))
            assert late.status == 403
            assert late.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
            leaving["spec"]["finalizers"] = []
            assert (await api.admin("PUT", "/api/v1/namespaces/x/finalize", leaving)).status == 200
            assert (await api.admin("GET", "/api/v1/namespaces/x")).status == 404
            assert (await api.admin("DELETE", "/api/v1/namespaces/default")).status == 403

    run(check())


class _Stamp:
    """A plugin as other rooms write them: it knows the server by shape only."""

    async def admit(self, request: AdmissionRequest) -> Json:
        if request.resource.key == POD_RESOURCE.key and request.operation == "CREATE":
            request.object["spec"].setdefault("initContainers", []).append({"name": "i", "image": "i"})
        return request.object


def test_plugins_change_objects_before_they_are_defaulted_and_stored(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path, [_Stamp()]) as api:
            made = await api.admin.created(PODS, pod("p"))
            assert made["spec"]["initContainers"][0]["imagePullPolicy"] == "Always"
            assert made["spec"]["serviceAccountName"] == "default"
            refused = await api.admin("POST", PODS, pod("q", serviceAccountName="nobody"))
            assert refused.status == 403
            assert "default/nobody" in refused.message

    run(check())


def test_scale_reads_and_writes_one_number(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(DEPLOYMENTS, deployment("web", 2))
            path = f"{DEPLOYMENTS}/web/scale"
            scale = (await api.admin("GET", path)).body
            assert (scale["spec"], scale["status"]["selector"]) == ({"replicas": 2}, "app=web")
            assert (await api.admin.patch(path, {"spec": {"replicas": 4}})).body["spec"] == {"replicas": 4}
            assert (await api.admin("PUT", path, scale)).status == 409
            assert (await api.admin.patch(path, {"spec": {"replicas": -1}})).status == 422
            assert (await api.admin("GET", f"{DEPLOYMENTS}/web")).body["spec"]["replicas"] == 4

    run(check())


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await api.admin.created(CONFIG_MAPS, config_map("a", x="1"))
        async with api_server(tmp_path) as api:
            assert (await api.admin("GET", f"{CONFIG_MAPS}/a")).body == made

    run(check())
