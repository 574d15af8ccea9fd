"""Who gets in, and who may do what."""

from pathlib import Path

import pytest

from mesh.net.loop import run
from tests.component.apiserver_harness import CONFIG_MAPS, PODS, Api, Caller, api_server, config_map, pod

pytestmark = pytest.mark.component

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


async def _bound_pod(api: Api, name: str, node: str, account: str = "default") -> None:
    await api.admin("POST", ACCOUNTS, {"metadata": {"name": account}})
    await api.admin.created(PODS, pod(name, serviceAccountName=account))
    bound = await api.admin("POST", f"{PODS}/{name}/binding", {"target": {"kind": "Node", "name": node}})
    assert bound.status == 201, bound.body


async def _token(caller: Caller, account: str, pod_name: str, **more: object) -> str:
    ref = {"kind": "Pod", "apiVersion": "v1", "name": pod_name}
    answer = await caller("POST", f"{ACCOUNTS}/{account}/token", {"spec": {"boundObjectRef": ref, **more}})
    assert answer.status == 201, answer.body
    return str(answer.body["status"]["token"])


def test_nobody_sees_health_and_version_only(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, api.user() as nobody:
            for path in ("/readyz", "/healthz", "/livez", "/readyz/ping", "/version"):
                assert (await nobody("GET", path)).status == 200, path
            for path in ("/api", "/api/v1/namespaces", "/openapi/v3"):
                answer = await nobody("GET", path)
                assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
            assert (await nobody("GET", "/api/v1/pods", Authorization="Basic eDp5")).status == 401
            assert (await nobody("GET", "/api/v1/pods", Authorization="Bearer nonsense")).status == 401

    run(check())


def test_a_node_reports_its_own_pods_and_no_others(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, api.user(api.server.pki.nodes["node-1"]) as node:
            await _bound_pod(api, "mine", "node-1")
            await _bound_pod(api, "theirs", "node-2")
            status = {"status": {"phase": "Running"}}
            assert (await node.patch(f"{PODS}/mine/status", status)).status == 200
            refused = await node.patch(f"{PODS}/theirs/status", status)
            assert refused.status == 403
            assert 'node "node-1"' in refused.message
            assert (await node.patch(f"{PODS}/mine", {"metadata": {"labels": {"a": "b"}}})).status == 403
            assert (await node("GET", "/api/v1/pods")).status == 200
            assert (await node("DELETE", f"{PODS}/theirs")).status == 403
            assert (await node("DELETE", f"{PODS}/mine", {"gracePeriodSeconds": 0})).status == 200
            assert (await node("POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}})).status == 201
            lease = {"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "node-1"}}
            leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
            assert (await node("POST", leases, lease)).status == 201
            assert (await node("POST", CONFIG_MAPS, config_map("a"))).status == 403

    run(check())


def test_a_node_reads_secrets_only_its_pods_refer_to(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, api.user(api.server.pki.nodes["node-1"]) as node:
            secrets = "/api/v1/namespaces/default/secrets"
            for name in ("used", "other"):
                await api.admin.created(secrets, {"metadata": {"name": name}, "stringData": {"k": "v"}})
            volume = {"name": "v", "secret": {"secretName": "used"}}
            await api.admin("POST", ACCOUNTS, {"metadata": {"name": "default"}})
            await api.admin.created(PODS, pod("p", volumes=[volume]))
            assert (await node("GET", f"{secrets}/used")).status == 403
            await api.admin("POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "node-1"}})
            assert (await node("GET", f"{secrets}/used")).status == 200
            assert (await node("GET", f"{secrets}?fieldSelector=metadata.name%3Dused")).status == 200
            assert (await node("GET", f"{secrets}/other")).status == 403
            assert (await node("GET", secrets)).status == 403
            await api.admin("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
            assert (await node("GET", f"{secrets}/used")).status == 403

    run(check())


def test_tokens_are_bound_to_the_nodes_pod_and_end_with_it(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, api.user(api.server.pki.nodes["node-1"]) as node:
            await _bound_pod(api, "mine", "node-1", "web")
            await _bound_pod(api, "theirs", "node-2", "db")
            token = await _token(node, "web", "mine", audiences=["meshwork"], expirationSeconds=600)
            review = (await api.admin("POST", REVIEWS, {"spec": {"token": token, "audiences": ["meshwork"]}})).body
            assert review["status"]["user"]["username"] == "system:serviceaccount:default:web"
            extra = review["status"]["user"]["extra"]
            assert extra["authentication.kubernetes.io/pod-name"] == ["mine"]
            ref = {"kind": "Pod", "name": "theirs"}
            assert (await node("POST", f"{ACCOUNTS}/db/token", {"spec": {"boundObjectRef": ref}})).status == 403
            assert (await node("POST", f"{ACCOUNTS}/web/token", {"spec": {}})).status == 403
            await api.admin("DELETE", f"{PODS}/mine", {"gracePeriodSeconds": 0})
            gone = (await api.admin("POST", REVIEWS, {"spec": {"token": token}})).body["status"]
            assert gone["authenticated"] is False
            assert "gone" in gone["error"]

    run(check())


def test_a_token_for_others_does_not_open_the_api(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _bound_pod(api, "p", "node-1", "web")
            token = await _token(api.admin, "web", "p", audiences=["elsewhere"])
            async with api.user(token=token) as pod_user:
                assert (await pod_user("GET", "/api")).status == 401
            short = {"spec": {"expirationSeconds": 10}}
            assert (await api.admin("POST", f"{ACCOUNTS}/web/token", short)).status == 422

    run(check())


def test_a_service_account_may_only_ask_about_itself(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _bound_pod(api, "p", "node-1", "web")
            async with api.user(token=await _token(api.admin, "web", "p")) as pod_user:
                whoami = await pod_user("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
                assert whoami.body["status"]["userInfo"]["username"] == "system:serviceaccount:default:web"
                spec = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
                path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
                can_i = await pod_user("POST", path, {"spec": spec})
                assert can_i.body["status"]["allowed"] is False
                for method, place in (("GET", PODS), ("POST", CONFIG_MAPS), ("POST", REVIEWS)):
                    answer = await pod_user(method, place, {})
                    assert (answer.status, answer.body["reason"]) == (403, "Forbidden"), place
                assert (await pod_user("GET", "/apis")).status == 200

    run(check())


def test_the_control_plane_may_do_everything(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api, api.user(api.server.pki.control_plane) as controllers:
            assert (await controllers("POST", CONFIG_MAPS, config_map("a"))).status == 201
            assert (await controllers("DELETE", f"{CONFIG_MAPS}/a")).status == 200

    run(check())


def test_what_is_not_served_is_404_or_405(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            for path in (
                "/api/v1/nothings",
                "/apis/x/v1/y",
                f"{CONFIG_MAPS}/a/status",
                "/nothing",
                "/api/v1/nodes/n/proxy",
            ):
                assert (await api.admin("GET", path)).status == 404, path
            assert (await api.admin("PUT", CONFIG_MAPS, {})).status == 405
            assert (await api.admin("POST", f"{CONFIG_MAPS}/a", {})).status == 405
            assert (await api.admin("GET", f"{CONFIG_MAPS}?limit=x")).status == 400
            assert (await api.admin("GET", f"{CONFIG_MAPS}?watch=maybe")).status == 400

    run(check())
