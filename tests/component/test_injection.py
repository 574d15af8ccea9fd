"""Injection and the policy gate as plugins of the real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controlplane.apiserver import errors
from controlplane.apiserver.admission import Admission
from controlplane.injector.admission import PolicyGate, SidecarInjector
from mesh.api.resources import Json
from tests.component.apiserver_harness import Api, api_server, pod

pytestmark = pytest.mark.component

HTTP_ROUTES_PATH = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes"
RULES = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"


def run(work: Callable[[Api], Awaitable[None]], home: Path) -> None:
    async def whole() -> None:
        plugins: list[Admission] = [SidecarInjector(errors.refused), PolicyGate(errors.invalid)]
        async with api_server(home, plugins) as api:
            labels = {"istio-injection": "enabled"}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
            await api.admin.created("/api/v1/namespaces", body)
            await work(api)

    asyncio.run(whole())


def containers(obj: Json) -> list[str]:
    return [c["name"] for c in obj["spec"].get("initContainers", ())]


def test_pods_of_a_labelled_namespace_get_the_sidecar(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        inside = await api.admin.created("/api/v1/namespaces/shop/pods", pod("web"))
        assert containers(inside) == ["mesh-proxy"]
        assert inside["metadata"]["annotations"]["meshwork.dev/interception"] == "redirect"
        opted_out = pod("out")
        opted_out["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
        assert containers(await api.admin.created("/api/v1/namespaces/shop/pods", opted_out)) == []
        assert containers(await api.admin.created("/api/v1/namespaces/default/pods", pod("web"))) == []

    run(work, tmp_path)


def test_a_pod_the_sidecar_cannot_work_in_is_refused(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        answer = await api.admin("POST", "/api/v1/namespaces/shop/pods", pod("web", automountServiceAccountToken=False))
        assert answer.status == 403
        assert "proves its identity with the service account token" in answer.message

    run(work, tmp_path)


def test_a_policy_that_can_never_work_is_refused_with_its_fields(tmp_path: Path) -> None:
    async def work(api: Api) -> None:
        branches = [{"destination": {"host": "web"}, "weight": 60}, {"destination": {"host": "api"}, "weight": 30}]
        spec: Json = {"hosts": ["web"], "http": [{"route": branches, "retries": {"attempts": 2, "retryOn": "oops"}}]}
        body = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "web"},
            "spec": spec,
        }
        answer = await api.admin("POST", RULES, body)
        assert answer.status == 422
        assert answer.fields == ["spec.http[0].route", "spec.http[0].retries.retryOn"]
        assert "weights sum to 90, want 100" in answer.message
        branches[0]["weight"] = 70
        del spec["http"][0]["retries"]
        await api.admin.created(RULES, body)
        broken = await api.admin.patch(f"{RULES}/web", {"spec": {"http": [{"route": []}]}})
        assert (broken.status, broken.fields) == (422, ["spec.http[0].route"])
        kept = await api.admin("GET", f"{RULES}/web")
        assert kept.body["spec"]["http"][0]["route"][0]["weight"] == 70
        route: Json = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "rules": [{"matches": [{"path": {"type": "Exact", "value": "a"}}]}],
            },
        }
        answer = await api.admin("POST", HTTP_ROUTES_PATH, route)
        assert (answer.status, answer.fields) == (422, ["spec.rules[0].matches[0].path.value"])

    run(work, tmp_path)
