"""All controllers against the real API server, with a kubelet of a few lines."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
)
from mesh.client.rest import PatchType
from tests.component.controlled_cluster import Cluster, controlled_cluster

pytestmark = pytest.mark.component

Scenario = Callable[[Cluster], Awaitable[None]]


def _run(home: Path, scenario: Scenario, *, nodes: int = 2) -> None:
    async def main() -> None:
        async with controlled_cluster(home, nodes=nodes) as cluster:
            await scenario(cluster)

    asyncio.run(main())


def _template(app: str, image: str) -> Json:
    container = {"name": "a", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container]}}


def _deployment(name: str = "web", *, image: str = "v1", replicas: int = 3, **spec: Any) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": spec.pop("namespace", "default")},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": _template(name, image),
            **spec,
        },
    }


def _service(name: str = "web", **spec: Any) -> Json:
    fields = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]} | spec
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {k: v for k, v in fields.items() if v is not None},
    }


async def _set_image(cluster: Cluster, image: str, **spec: Any) -> None:
    containers = [{"name": "a", "image": image}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}, **spec}}
    await cluster.client.patch(DEPLOYMENTS, "web", patch, "default", patch_type=PatchType.STRATEGIC)


async def _patch(cluster: Cluster, spec: Json) -> None:
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": spec}, "default")


def _images(cluster: Cluster) -> set[str]:
    return {pod.spec.containers[0].image for pod in cluster.pods()}


def test_rollout_keeps_enough_available_and_undo_brings_the_old_pods_back(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
        await cluster.client.create(DEPLOYMENTS, _deployment(replicas=6, strategy=strategy))
        first = await cluster.until_rolled_out("web")
        assert first["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"

        cluster.kubelet.seen_available.clear()
        await _set_image(cluster, "v2")
        second = await cluster.until_rolled_out("web")
        await cluster.until(lambda: _images(cluster) == {"v2"})
        assert min(cluster.kubelet.seen_available) >= 5
        assert max(cluster.kubelet.seen_available) <= 7
        assert second["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"

        sets = (await cluster.client.list(REPLICA_SETS, "default"))["items"]
        old = next(item for item in sets if item["spec"]["replicas"] == 0)
        template = copy.deepcopy(old["spec"]["template"])
        del template["metadata"]["labels"]["pod-template-hash"]  # what `kubectl rollout undo` does
        await cluster.client.patch(
            DEPLOYMENTS,
            "web",
            [{"op": "replace", "path": "/spec/template", "value": template}],
            "default",
            patch_type=PatchType.JSON,
        )
        third = await cluster.until_rolled_out("web")
        await cluster.until(lambda: _images(cluster) == {"v1"})
        assert third["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        sets = (await cluster.client.list(REPLICA_SETS, "default"))["items"]
        assert len(sets) == 2, "undo goes back to the old set"

    _run(tmp_path, scenario)


def test_rollout_with_broken_pods_stops_and_says_so(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.kubelet.is_ready = lambda pod: pod.spec.containers[0].image != "broken"
        await cluster.client.create(DEPLOYMENTS, _deployment(replicas=4, progressDeadlineSeconds=1))
        await cluster.until_rolled_out("web")
        await _set_image(cluster, "broken")

        def has_timed_out(obj: Json) -> bool:
            conditions = {c["type"]: c for c in obj["status"]["conditions"]}
            return bool(conditions["Progressing"].get("reason") == "ProgressDeadlineExceeded")

        stuck = await cluster.until_object(DEPLOYMENTS, "web", "default", has_timed_out)
        assert stuck["status"]["availableReplicas"] >= 3
        assert {c["type"]: c["status"] for c in stuck["status"]["conditions"]}["Available"] == "True"
        assert min(cluster.kubelet.seen_available[-10:]) >= 3

    _run(tmp_path, scenario)


def test_scale_pause_resume_and_recreate(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(DEPLOYMENTS, _deployment(replicas=2))
        await cluster.until_rolled_out("web")
        scale = {"spec": {"replicas": 5}}
        await cluster.client.patch(DEPLOYMENTS, "web", scale, "default", subresource="scale")
        await cluster.until_rolled_out("web")
        await cluster.until(lambda: len(cluster.pods()) == 5)

        await _patch(cluster, {"paused": True})
        await _set_image(cluster, "v2")
        await _patch(cluster, {"replicas": 1})
        await cluster.until(lambda: len(cluster.pods()) == 1)
        assert _images(cluster) == {"v1"}, "a paused Deployment scales but does not roll"

        strategy = {"type": "Recreate", "rollingUpdate": None}
        await _patch(cluster, {"paused": False, "replicas": 3, "strategy": strategy})
        seen: set[frozenset[str]] = set()

        def is_new() -> bool:
            seen.add(frozenset(_images(cluster)))
            return len(cluster.pods()) == 3 and _images(cluster) == {"v2"}

        await cluster.until(is_new)
        assert frozenset({"v1", "v2"}) not in seen, "Recreate never runs both"

    _run(tmp_path, scenario)


def test_sets_adopt_orphans_and_let_strays_go(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        orphan = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "orphan", "namespace": "default", "labels": {"app": "rc"}},
            "spec": _template("rc", "v1")["spec"],
        }
        await cluster.client.create(PODS, orphan)
        controller = {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": "rc", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"app": "rc"}, "template": _template("rc", "v1")},
        }
        await cluster.client.create(REPLICATION_CONTROLLERS, controller)
        await cluster.until_object(
            REPLICATION_CONTROLLERS, "rc", "default", lambda obj: obj.get("status", {}).get("availableReplicas") == 2
        )
        adopted = await cluster.client.get(PODS, "orphan", "default")
        assert adopted["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController"
        assert len(cluster.pods()) == 2

        await cluster.client.patch(PODS, "orphan", {"metadata": {"labels": {"app": "debug"}}}, "default")
        await cluster.until(lambda: len(cluster.pods()) == 3)
        released = await cluster.until_object(
            PODS, "orphan", "default", lambda obj: not obj["metadata"].get("ownerReferences")
        )
        assert released["metadata"]["labels"]["app"] == "debug"

    _run(tmp_path, scenario)


def _ready_pods(slices: list[Json]) -> set[str]:
    return {
        endpoint["targetRef"]["name"]
        for item in slices
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
    }


async def _slices(cluster: Cluster, service: str) -> list[Json]:
    selector = f"kubernetes.io/service-name={service}"
    items: list[Json] = (await cluster.client.list(ENDPOINT_SLICES, "default", label_selector=selector))["items"]
    return items


async def _until_ready_pods(cluster: Cluster, service: str, want: Callable[[set[str]], bool]) -> list[Json]:
    async with asyncio.timeout(15):
        while not want(_ready_pods(slices := await _slices(cluster, service))):
            await asyncio.sleep(0.03)
    return slices


def test_service_follows_its_pods_and_terminating_ones_leave_at_once(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(SERVICES, _service())
        await cluster.client.create(DEPLOYMENTS, _deployment())
        (item,) = await _until_ready_pods(cluster, "web", lambda names: len(names) == 3)
        assert item["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
        legacy = await cluster.until_object(
            ENDPOINTS, "web", "default", lambda obj: len((obj.get("subsets") or [{}])[0].get("addresses") or []) == 3
        )
        assert legacy["subsets"][0]["ports"][0]["port"] == 8080

        # A node that is dead for the kubelet only: nobody confirms the pod's end, so it stays terminating.
        victim = cluster.pods()[0].metadata.name
        cluster.kubelet.dead.add(cluster.pods()[0].spec.node_name)
        await cluster.client.delete(PODS, victim, "default")
        (item,) = await _until_ready_pods(cluster, "web", lambda names: victim not in names)
        ending = [e for e in item["endpoints"] if e["targetRef"]["name"] == victim]
        assert [e["conditions"]["terminating"] for e in ending] in ([True], [])

        await cluster.client.delete(SERVICES, "web", "default")
        await cluster.until_gone(ENDPOINTS, "web", "default")
        await cluster.until_gone(ENDPOINT_SLICES, item["metadata"]["name"], "default")

    _run(tmp_path, scenario)


def test_service_without_selector_is_left_alone_but_for_mirroring(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(SERVICES, _service("db", selector=None))
        subsets = [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "http", "port": 5432}]}]
        endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "default"}}
        await cluster.client.create(ENDPOINTS, {**endpoints, "subsets": subsets})
        async with asyncio.timeout(15):
            while not (slices := await _slices(cluster, "db")):
                await asyncio.sleep(0.03)
        assert [e["addresses"] for e in slices[0]["endpoints"]] == [["192.0.2.1"]]
        assert (await cluster.client.get(ENDPOINTS, "db", "default"))["subsets"][0]["addresses"][0]["ip"] == "192.0.2.1"
        (own,) = await _slices(cluster, "kubernetes")
        assert own["metadata"]["name"] == "kubernetes", "the API server's own slice is not mirrored"

    _run(tmp_path, scenario)


def test_dead_node_is_marked_emptied_and_its_pods_replaced_elsewhere(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(SERVICES, _service())
        await cluster.client.create(DEPLOYMENTS, _deployment(replicas=4))
        await cluster.until_rolled_out("web")
        await cluster.until(lambda: {pod.spec.node_name for pod in cluster.pods()} == {"node-1", "node-2"})
        lost = {pod.metadata.name for pod in cluster.pods() if pod.spec.node_name == "node-1"}
        cluster.kubelet.dead.add("node-1")

        def is_marked(obj: Json) -> bool:
            taints = {(t["key"], t["effect"]) for t in obj.get("spec", {}).get("taints") or []}
            ready = next(c for c in obj["status"]["conditions"] if c["type"] == "Ready")
            return ready["status"] == "Unknown" and ("node.kubernetes.io/unreachable", "NoExecute") in taints

        await cluster.until_object(NODES, "node-1", None, is_marked)
        await _until_ready_pods(cluster, "web", lambda names: not names & lost)
        await cluster.until(
            lambda: len(cluster.pods()) == 4 and all(pod.spec.node_name == "node-2" for pod in cluster.pods())
        )
        # Nobody confirms their end, so they are removed after the grace period; make that short.
        for name in lost:
            await cluster.client.delete(PODS, name, "default", grace_period_s=1)
        for name in lost:
            await cluster.until_gone(PODS, name, "default")

        cluster.kubelet.dead.clear()
        conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
        await cluster.client.patch(NODES, "node-1", {"status": {"conditions": conditions}}, subresource="status")
        await cluster.until_object(NODES, "node-1", None, lambda obj: not obj.get("spec", {}).get("taints"))

    _run(tmp_path, scenario)


def test_pods_of_a_removed_node_are_collected(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(DEPLOYMENTS, _deployment(replicas=4))
        await cluster.until_rolled_out("web")
        await cluster.until(lambda: any(pod.spec.node_name == "node-2" for pod in cluster.pods()))
        cluster.kubelet.dead.add("node-2")
        await cluster.client.delete(NODES, "node-2")
        await cluster.until(
            lambda: len(cluster.pods()) == 4 and all(pod.spec.node_name == "node-1" for pod in cluster.pods())
        )

    _run(tmp_path, scenario)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_deletion_cascades_to_the_pods(tmp_path: Path, propagation: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(DEPLOYMENTS, _deployment())
        await cluster.until_rolled_out("web")
        await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation=propagation)
        if propagation == "Foreground":
            await cluster.until_gone(DEPLOYMENTS, "web", "default")
            assert cluster.kubelet.pods.all("default") == () or not cluster.pods()
            assert (await cluster.client.list(REPLICA_SETS, "default"))["items"] == []
        await cluster.until(lambda: not cluster.kubelet.pods.all("default"))
        assert (await cluster.client.list(REPLICA_SETS, "default"))["items"] == []

    _run(tmp_path, scenario)


def test_orphan_deletion_keeps_the_pods(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(DEPLOYMENTS, _deployment())
        await cluster.until_rolled_out("web")
        before = {pod.metadata.uid for pod in cluster.pods()}
        await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
        await cluster.until_gone(DEPLOYMENTS, "web", "default")
        (item,) = (await cluster.client.list(REPLICA_SETS, "default"))["items"]
        assert not item["metadata"].get("ownerReferences")
        await cluster.client.create(DEPLOYMENTS, _deployment())
        await cluster.until_rolled_out("web")
        assert {pod.metadata.uid for pod in cluster.pods()} == before, "the new Deployment adopts the old set"

    _run(tmp_path, scenario)


_CRD: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
_WIDGETS = Resource(group="example.com", version="v1", plural="widgets", kind="Widget", is_namespaced=True)


async def _until_established(cluster: Cluster) -> None:
    def is_established(obj: Json) -> bool:
        conditions = obj.get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await cluster.client.create(CUSTOM_RESOURCE_DEFINITIONS, _CRD)
    await cluster.until_object(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com", None, is_established)


def _widget(name: str, namespace: str, *owners: Json) -> Json:
    meta = {"name": name, "namespace": namespace, "ownerReferences": list(owners)}
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta}


def test_custom_objects_follow_their_owners(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await _until_established(cluster)
        owner = await cluster.client.create(_WIDGETS, _widget("owner", "default"))
        reference = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]}
        await cluster.client.create(_WIDGETS, _widget("child", "default", reference))
        stale = {**reference, "uid": "00000000-0000-0000-0000-000000000000"}
        await cluster.client.create(_WIDGETS, _widget("stale-child", "default", stale))
        await cluster.until_gone(_WIDGETS, "stale-child", "default")
        assert await cluster.client.get(_WIDGETS, "child", "default")
        await cluster.client.delete(_WIDGETS, "owner", "default")
        await cluster.until_gone(_WIDGETS, "child", "default")

    _run(tmp_path, scenario)


def test_namespace_is_emptied_of_every_kind_and_goes(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await _until_established(cluster)
        await cluster.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        await cluster.until_object(SERVICE_ACCOUNTS, "default", "shop", lambda _: True)
        root_ca = await cluster.until_object(CONFIG_MAPS, "kube-root-ca.crt", "shop", lambda _: True)
        assert root_ca["data"] == {"ca.crt": "PEM"}
        await cluster.client.create(DEPLOYMENTS, _deployment(namespace="shop"))
        await cluster.client.create(_WIDGETS, _widget("w", "shop"))
        await cluster.until_rolled_out("web", namespace="shop")
        await cluster.client.delete(NAMESPACES, "shop")
        await cluster.until_gone(NAMESPACES, "shop")
        assert (await cluster.client.list(_WIDGETS, "shop"))["items"] == []
        assert cluster.kubelet.pods.all("shop") == ()

    _run(tmp_path, scenario)


def test_service_account_and_root_ca_come_back_when_removed(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        account = await cluster.until_object(SERVICE_ACCOUNTS, "default", "default", lambda _: True)
        await cluster.client.delete(SERVICE_ACCOUNTS, "default", "default")
        uid = account["metadata"]["uid"]
        await cluster.until_object(SERVICE_ACCOUNTS, "default", "default", lambda obj: obj["metadata"]["uid"] != uid)
        await cluster.until_object(CONFIG_MAPS, "kube-root-ca.crt", "default", lambda _: True)
        await cluster.client.patch(CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "default")
        await cluster.until_object(
            CONFIG_MAPS, "kube-root-ca.crt", "default", lambda obj: obj["data"] == {"ca.crt": "PEM"}
        )

    _run(tmp_path, scenario)
