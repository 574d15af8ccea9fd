"""list, watch, tables, discovery and OpenAPI."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest

from mesh.identity.tls import client_context
from mesh.net.loop import run
from tests.component.apiserver_harness import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    TABLE,
    Api,
    api_server,
    config_map,
    deployment,
    pod,
)

pytestmark = pytest.mark.component


async def _fill(api: Api, count: int) -> None:
    for n in range(count):
        obj = config_map(f"cm-{n:03}")
        obj["metadata"]["labels"] = {"parity": "odd" if n % 2 else "even"}
        await api.admin.created(CONFIG_MAPS, obj)


def test_pages_are_one_consistent_list(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 7)
            first = (await api.admin("GET", f"{CONFIG_MAPS}?limit=3")).body
            assert first["metadata"]["remainingItemCount"] == 4
            await api.admin.created(CONFIG_MAPS, config_map("cm-004-later"))
            names = [one["metadata"]["name"] for one in first["items"]]
            token = first["metadata"]["continue"]
            while token:
                page = (await api.admin("GET", f"{CONFIG_MAPS}?limit=3&continue={token}")).body
                assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
                names += [one["metadata"]["name"] for one in page["items"]]
                token = page["metadata"].get("continue")
            assert names == [f"cm-{n:03}" for n in range(7)]

    run(check())


def test_old_and_foreign_continue_tokens(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 4)
            token = (await api.admin("GET", f"{CONFIG_MAPS}?limit=1")).body["metadata"]["continue"]
            other = await api.admin("GET", f"{PODS}?limit=1&continue={token}")
            assert other.status == 400
            assert (await api.admin("GET", f"{CONFIG_MAPS}?limit=1&continue=junk")).status == 400
            await api.admin.created(CONFIG_MAPS, config_map("more"))
            await api.store.compact(api.store.revision)
            expired = await api.admin("GET", f"{CONFIG_MAPS}?limit=1&continue={token}")
            assert (expired.status, expired.body["reason"]) == (410, "Expired")

    run(check())


def test_selectors_choose_and_keep_the_limit(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 7)
            page = (await api.admin("GET", f"{CONFIG_MAPS}?labelSelector=parity%3Deven&limit=3")).body
            assert [one["metadata"]["name"] for one in page["items"]] == ["cm-000", "cm-002", "cm-004"]
            rest = await api.admin(
                "GET", f"{CONFIG_MAPS}?labelSelector=parity%3Deven&limit=3&continue={page['metadata']['continue']}"
            )
            assert [one["metadata"]["name"] for one in rest.body["items"]] == ["cm-006"]
            one = (await api.admin("GET", f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dcm-005")).body
            assert [item["metadata"]["name"] for item in one["items"]] == ["cm-005"]
            bad = await api.admin("GET", f"{CONFIG_MAPS}?fieldSelector=data.x%3D1")
            assert bad.status == 400
            assert "metadata.name" in bad.message
            assert (await api.admin("GET", f"{CONFIG_MAPS}?labelSelector=a+in+(b")).status == 400

    run(check())


def test_a_long_list_comes_whole(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await asyncio.gather(*(api.admin.created(CONFIG_MAPS, config_map(f"c{n}")) for n in range(250)))
            listed = (await api.admin("GET", f"{CONFIG_MAPS}?resourceVersion=0")).body
            assert len(listed["items"]) == 250
            assert all(item["metadata"]["resourceVersion"] != "" for item in listed["items"])

    run(check())


def test_a_watch_from_a_list_misses_and_repeats_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 2)
            revision = (await api.admin("GET", CONFIG_MAPS)).body["metadata"]["resourceVersion"]
            await api.admin.patch(f"{CONFIG_MAPS}/cm-000", {"data": {"x": "1"}})
            await api.admin("DELETE", f"{CONFIG_MAPS}/cm-001")
            await api.admin.created(CONFIG_MAPS, config_map("new"))
            events = await api.admin.events(f"{CONFIG_MAPS}?watch=true&resourceVersion={revision}", 3)
            seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
            assert seen == [("MODIFIED", "cm-000"), ("DELETED", "cm-001"), ("ADDED", "new")]
            versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
            assert versions == sorted(versions)
            assert versions[0] > int(revision)

    run(check())


def test_a_watch_without_a_version_starts_with_what_is_there(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 2)
            events = await api.admin.events(f"{CONFIG_MAPS}?watch=1", 2)
            assert [event["type"] for event in events] == ["ADDED", "ADDED"]
            path = f"{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
            streamed = await api.admin.events(path, 3)
            assert streamed[2]["type"] == "BOOKMARK"
            assert streamed[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}

    run(check())


def test_an_object_that_comes_to_match_is_added_and_one_that_stops_is_deleted(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 2)
            revision = api.store.revision
            await api.admin.patch(f"{CONFIG_MAPS}/cm-001", {"metadata": {"labels": {"parity": "even"}}})
            await api.admin.patch(f"{CONFIG_MAPS}/cm-000", {"metadata": {"labels": {"parity": "odd"}}})
            path = f"{CONFIG_MAPS}?watch=1&labelSelector=parity%3Deven&resourceVersion={revision}"
            events = await api.admin.events(path, 2)
            seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
            assert seen == [("ADDED", "cm-001"), ("DELETED", "cm-000")]

    run(check())


def test_a_watch_from_forgotten_history_ends_with_410(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await _fill(api, 3)
            await api.store.compact(api.store.revision)
            for revision in (1, api.store.revision + 1000):
                (event,) = await api.admin.events(f"{CONFIG_MAPS}?watch=1&resourceVersion={revision}", 1)
                assert (event["type"], event["object"]["code"]) == ("ERROR", 410)

    run(check())


def test_a_watch_ends_at_its_timeout(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            answer = await api.admin("GET", f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1")
            assert (answer.status, answer.body) == (200, b"")
            assert not api.server.core.watches

    run(check())


def test_a_watcher_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            async with api.user(api.server.pki.admin) as leaver:
                await leaver.events("/api/v1/namespaces?watch=1", 1)
            async with asyncio.timeout(5):
                while api.server.core.watches:
                    await asyncio.sleep(0.01)

    run(check())


class _Sleeper(asyncio.Protocol):
    """A client that watches config maps and reads nothing after the first bytes of the answer."""

    def __init__(self) -> None:
        self.has_answer = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(f"GET {CONFIG_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()
        self.has_answer.set()


async def _sleeping_watcher(api: Api, stack: AsyncExitStack) -> None:
    """Opens the connection; `stack` closes it."""
    host, port = api.server.addresses[0]
    tls = client_context(api.server.pki.ca_file, api.server.pki.admin)
    transport, sleeper = await asyncio.get_running_loop().create_connection(_Sleeper, host, port, ssl=tls)
    stack.callback(transport.abort)
    await sleeper.has_answer.wait()


async def _write_much(api: Api) -> None:
    await api.admin.created(CONFIG_MAPS, {"metadata": {"generateName": "b-"}, "data": {"x": "y" * 100_000}})


def test_a_watcher_that_does_not_read_is_cut(tmp_path: Path) -> None:
    async def check() -> None:
        async with AsyncExitStack() as stack, api_server(tmp_path, watch_buffer_bytes=200_000) as api:
            await _sleeping_watcher(api, stack)
            async with asyncio.timeout(10):
                while api.server.core.watches:
                    await _write_much(api)

    run(check())


def test_the_server_closes_soon_although_a_watcher_does_not_read(tmp_path: Path) -> None:
    async def check() -> None:
        async with asyncio.timeout(15), AsyncExitStack() as stack, api_server(tmp_path) as api:
            await _sleeping_watcher(api, stack)
            for _ in range(80):
                await _write_much(api)
            assert api.server.core.watches

    run(check())


def test_tables_have_kubectls_columns(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(DEPLOYMENTS, deployment("web"))
            table = (await api.admin("GET", DEPLOYMENTS, Accept=TABLE)).body
            narrow = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 0]
            assert narrow == ["Name", "Ready", "Up-to-date", "Available", "Age"]
            assert table["rows"][0]["cells"][:4] == ["web", "0/2", 0, 0]
            assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
            one = (await api.admin("GET", f"{DEPLOYMENTS}/web?includeObject=Object", Accept=TABLE)).body
            assert one["rows"][0]["object"]["kind"] == "Deployment"
            async with api.admin.session.get(
                f"{DEPLOYMENTS}?watch=1&timeoutSeconds=1", headers={"Accept": TABLE}
            ) as answer:
                event = json.loads(await answer.content.readline())
            assert (event["type"], event["object"]["kind"]) == ("ADDED", "Table")

    run(check())


def test_metadata_only_lists(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            await api.admin.created(PODS, pod("p"))
            accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
            listed = (await api.admin("GET", PODS, Accept=accept)).body
            assert listed["kind"] == "PartialObjectMetadataList"
            assert set(listed["items"][0]) == {"kind", "apiVersion", "metadata"}

    run(check())


def test_discovery_in_both_forms(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            groups = {group["name"] for group in (await api.admin("GET", "/apis")).body["groups"]}
            assert {"apps", "networking.istio.io", "node.meshwork.dev", "authorization.k8s.io"} <= groups
            names = {r["name"] for r in (await api.admin("GET", "/api/v1/")).body["resources"]}
            assert {"pods", "pods/log", "pods/binding", "services/proxy", "namespaces/finalize"} <= names
            accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
            aggregated = await api.admin("GET", "/apis", Accept=accept)
            assert "APIGroupDiscoveryList" in aggregated.headers["Content-Type"]
            assert {item["metadata"]["name"] for item in aggregated.body["items"]} == groups
            assert (await api.admin("GET", "/apis/none.example.com")).status == 404
            assert (await api.admin("GET", "/version/")).body["minor"] == "32"

    run(check())


def test_openapi_documents_say_what_kubectl_looks_for(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            paths = (await api.admin("GET", "/openapi/v3")).body["paths"]
            document = (await api.admin("GET", paths["apis/apps/v1"]["serverRelativeURL"])).body
            patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
            assert patch["x-kubernetes-group-version-kind"]["kind"] == "Deployment"
            assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
            assert (await api.admin("GET", "/openapi/v3/apis/none/v1")).status == 404

    run(check())


def test_istio_versions_share_one_stored_form(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            root = "/apis/networking.istio.io/{}/namespaces/default/virtualservices"
            spec = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
            old = {"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "web"}}
            made = await api.admin.created(root.format("v1beta1"), {**old, "spec": spec})
            assert made["apiVersion"] == "networking.istio.io/v1beta1"
            new = (await api.admin("GET", f"{root.format('v1')}/web")).body
            assert new["apiVersion"] == "networking.istio.io/v1"
            assert new["metadata"]["uid"] == made["metadata"]["uid"]

    run(check())
