"""The client against a small HTTP server of the test: retries, errors, list pages, watches that break, informers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from aiohttp import web

from mesh.api.pod import Pod
from mesh.api.resources import CONFIG_MAPS, PODS, Json
from mesh.client.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from mesh.client.events import EventRecorder
from mesh.client.informer import Change, ChangeType, Informer
from mesh.client.rest import ApiClient, ClientConfig, PatchType
from mesh.clock import ManualClock

pytestmark = pytest.mark.component

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _serving(handler: Handler, *, port: int = 0) -> AsyncIterator[tuple[ApiClient, int]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    actual: int = runner.addresses[0][1]
    try:
        config = ClientConfig(server=f"http://127.0.0.1:{actual}", request_timeout_s=5.0)
        async with ApiClient(config) as client:
            yield client, actual
    finally:
        await runner.cleanup()


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _status(code: int, reason: str, **details: Any) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} here", "details": details}
    return _json(body, code)


def _pod(name: str, version: int, **labels: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version), "labels": labels},
    }


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (404, "NotFound", NotFoundError),
        (409, "AlreadyExists", AlreadyExistsError),
        (409, "Conflict", ConflictError),
        (403, "Forbidden", ForbiddenError),
        (410, "Expired", GoneError),
        (422, "Invalid", InvalidError),
    ],
)
def test_status_bodies_become_typed_errors(code: int, reason: str, error: type[Exception]) -> None:
    async def handler(_: web.Request) -> web.Response:
        return _status(code, reason, causes=[{"field": "spec"}])

    async def scenario() -> None:
        async with _serving(handler) as (client, _):
            with pytest.raises(error, match=f"{reason} here") as caught:
                await client.create(PODS, _pod("a", 0))
            assert caught.value.details["causes"] == [{"field": "spec"}]  # type: ignore[attr-defined]  # an ApiError

    asyncio.run(scenario())


def test_get_is_tried_again_but_post_is_not() -> None:
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.method)
        if request.method == "GET" and calls.count("GET") > 2:
            return _json(_pod("a", 1))
        return _status(503, "ServiceUnavailable")

    async def scenario() -> None:
        async with _serving(handler) as (client, _):
            assert (await client.get(PODS, "a", "ns"))["metadata"]["name"] == "a"
            with pytest.raises(UnavailableError):
                await client.create(PODS, _pod("a", 0))

    asyncio.run(scenario())
    assert calls == ["GET", "GET", "GET", "POST"]


def test_server_that_is_away_is_an_unavailable_error() -> None:
    async def scenario() -> None:
        config = ClientConfig(server="http://127.0.0.1:1", request_timeout_s=0.5)
        async with ApiClient(config) as client:
            with pytest.raises(UnavailableError, match="can't connect"):
                await client.create(PODS, _pod("a", 0))

    asyncio.run(scenario())


def test_list_joins_pages_and_starts_again_when_the_token_expires() -> None:
    expire = False

    async def handler(request: web.Request) -> web.Response:
        token = request.query.get("continue", "")
        if "limit" not in request.query:
            return _json({"metadata": {"resourceVersion": "9"}, "items": [_pod("whole", 1)]})
        if not token:
            return _json(
                {"metadata": {"resourceVersion": "5", "continue": "t"}, "items": [{"metadata": {"name": "a"}}]}
            )
        if expire:
            return _status(410, "Expired")
        return _json({"metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "b"}}]})

    async def scenario() -> None:
        nonlocal expire
        async with _serving(handler) as (client, _):
            result = await client.list(PODS, "ns")
            assert [item["metadata"]["name"] for item in result["items"]] == ["a", "b"]
            assert {(item["apiVersion"], item["kind"]) for item in result["items"]} == {("v1", "Pod")}
            assert result["metadata"] == {"resourceVersion": "5"}
            expire = True
            assert [item["metadata"]["name"] for item in (await client.list(PODS, "ns"))["items"]] == ["whole"]

    asyncio.run(scenario())


def test_requests_carry_what_the_verbs_promise() -> None:
    seen: list[tuple[str, str, str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        raw = await request.read()
        seen.append((request.method, request.path_qs, request.content_type, orjson.loads(raw) if raw else None))
        return _json({"kind": "Status", "status": "Success"})

    async def scenario() -> None:
        async with _serving(handler) as (client, _):
            await client.patch(PODS, "a", [{"op": "test"}], "ns", patch_type=PatchType.JSON, subresource="status")
            await client.delete(PODS, "a", "ns", grace_period_s=0, propagation="Foreground", uid="u1")
            await client.create(PODS, {"target": {}}, "ns", subresource="binding", name="a", dry_run=True)
            with pytest.raises(ValueError, match="needs a namespace"):
                await client.get(PODS, "a")

    asyncio.run(scenario())
    assert seen[0] == ("PATCH", "/api/v1/namespaces/ns/pods/a/status", PatchType.JSON.value, [{"op": "test"}])
    assert seen[1][3]["gracePeriodSeconds"] == 0
    assert seen[1][3]["propagationPolicy"] == "Foreground"
    assert seen[1][3]["preconditions"] == {"uid": "u1"}
    assert seen[2][:2] == ("POST", "/api/v1/namespaces/ns/pods/a/binding?dryRun=All")


class _World:
    """A pod collection whose watches a test feeds and breaks."""

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.version = 10
        self.lists = 0
        self.watch_versions: list[str] = []
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            return _json({"metadata": {"resourceVersion": str(self.version)}, "items": self.items})
        self.watch_versions.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (line := await self.events.get()) is not None:
            await response.write(line)
        if request.transport is not None:
            request.transport.abort()
        return response

    def send(self, type_: str, obj: Json) -> None:
        self.events.put_nowait(orjson.dumps({"type": type_, "object": obj}) + b"\n")


@asynccontextmanager
async def _informing(world: _World) -> AsyncIterator[tuple[Informer[Pod], asyncio.Queue[Change[Pod]]]]:
    changes: asyncio.Queue[Change[Pod]] = asyncio.Queue()
    async with _serving(world.handle) as (client, _):
        informer = Informer(client, PODS, Pod.of)
        informer.add_handler(changes.put_nowait)
        informer.add_index("app", lambda pod: [pod.metadata.labels.get("app", "")])
        task = asyncio.get_running_loop().create_task(informer.run())
        try:
            await asyncio.wait_for(informer.wait_synced(), 5)
            yield informer, changes
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            world.events.put_nowait(None)


def test_informer_follows_the_collection_and_its_indexes() -> None:
    async def scenario() -> None:
        world = _World()
        world.items = [_pod("a", 5, app="x")]
        async with _informing(world) as (informer, changes):
            first = await changes.get()
            assert (first.type, first.object.metadata.name) == (ChangeType.ADDED, "a")
            world.send("MODIFIED", _pod("a", 11, app="y"))
            moved = await asyncio.wait_for(changes.get(), 5)
            assert moved.type is ChangeType.MODIFIED
            assert informer.by_index("app", "x") == ()
            assert [pod.metadata.name for pod in informer.by_index("app", "y")] == ["a"]
            world.send("DELETED", _pod("a", 12, app="y"))
            assert (await asyncio.wait_for(changes.get(), 5)).type is ChangeType.DELETED
            assert informer.get("ns", "a") is None
            assert informer.by_index("app", "y") == ()

    asyncio.run(scenario())


def test_broken_watch_goes_on_from_the_last_version_without_a_list() -> None:
    async def scenario() -> None:
        world = _World()
        async with _informing(world) as (informer, changes):
            world.send("ADDED", _pod("a", 11))
            await asyncio.wait_for(changes.get(), 5)
            world.send("BOOKMARK", {"metadata": {"resourceVersion": "20"}})
            world.events.put_nowait(None)
            world.send("ADDED", _pod("b", 21))
            await asyncio.wait_for(changes.get(), 5)
            assert world.lists == 1
            assert world.watch_versions == ["10", "20"]
            assert informer.resource_version == "21"

    asyncio.run(scenario())


def test_expired_watch_lists_again_and_tells_only_the_differences() -> None:
    async def scenario() -> None:
        world = _World()
        world.items = [_pod("same", 5), _pod("gone", 6), _pod("changed", 7)]
        async with _informing(world) as (informer, changes):
            for _ in range(3):
                await changes.get()
            world.items = [_pod("same", 5), _pod("changed", 30), _pod("new", 31)]
            world.version = 40
            world.send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
            got = {}
            for _ in range(3):
                change = await asyncio.wait_for(changes.get(), 5)
                got[change.object.metadata.name] = change.type
            assert got == {"gone": ChangeType.DELETED, "changed": ChangeType.MODIFIED, "new": ChangeType.ADDED}
            assert changes.empty()
            assert informer.get("ns", "gone") is None

    asyncio.run(scenario())


def test_informer_survives_the_servers_restart() -> None:
    async def scenario() -> None:
        world = _World()
        config: ClientConfig | None = None
        async with _serving(world.handle) as (_, port):
            config = ClientConfig(server=f"http://127.0.0.1:{port}")
            world.events.put_nowait(None)
        changes: asyncio.Queue[Change[Json]] = asyncio.Queue()
        async with ApiClient(config) as client:
            informer = Informer(client, PODS, lambda obj: obj)
            informer.add_handler(changes.put_nowait)
            task = asyncio.get_running_loop().create_task(informer.run())
            await asyncio.sleep(0.05)
            assert not informer.has_synced
            world.items = [_pod("a", 1)]
            async with _serving(world.handle, port=port):
                assert (await asyncio.wait_for(changes.get(), 10)).type is ChangeType.ADDED
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                world.events.put_nowait(None)

    asyncio.run(scenario())


def test_unreadable_object_is_skipped_and_the_rest_goes_on() -> None:
    async def scenario() -> None:
        world = _World()
        bad = _pod("bad", 5)
        bad["spec"] = {"containers": "none"}
        world.items = [bad, _pod("good", 6)]
        async with _informing(world) as (informer, _):
            assert [pod.metadata.name for pod in informer.all()] == ["good"]

    asyncio.run(scenario())


def test_handler_added_late_sees_what_is_there() -> None:
    async def scenario() -> None:
        world = _World()
        world.items = [_pod("a", 5)]
        async with _informing(world) as (informer, _):
            late: list[Change[Pod]] = []
            informer.add_handler(late.append)
            assert [change.type for change in late] == [ChangeType.ADDED]

    asyncio.run(scenario())


def test_event_repeats_raise_the_count_and_floods_are_dropped() -> None:
    sent: list[tuple[str, Json]] = []
    arrived = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        sent.append((request.method, body))
        arrived.set()
        return _json({"metadata": {"name": "event-1"}})

    async def scenario() -> None:
        async with _serving(handler) as (client, _):
            recorder = EventRecorder(client, "scheduler", clock=ManualClock())
            task = asyncio.get_running_loop().create_task(recorder.run())
            recorder.event(_pod("a", 1), "Warning", "FailedScheduling", "no node fits")
            await asyncio.wait_for(arrived.wait(), 5)
            arrived.clear()
            for _ in range(40):
                recorder.event(_pod("a", 2), "Warning", "FailedScheduling", "no node fits")
            await asyncio.wait_for(arrived.wait(), 5)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert recorder.dropped == 16

    asyncio.run(scenario())
    assert [method for method, _ in sent] == ["POST", "PATCH"]
    assert sent[0][1]["involvedObject"]["name"] == "a"
    assert sent[0][1]["metadata"]["namespace"] == "ns"
    assert sent[1][1]["count"] == 25


def test_config_maps_have_no_field_lost_on_update() -> None:
    stored: list[Json] = []

    async def handler(request: web.Request) -> web.Response:
        stored.append(orjson.loads(await request.read()))
        return _json(stored[-1])

    async def scenario() -> None:
        async with _serving(handler) as (client, _):
            obj = {"metadata": {"name": "c", "namespace": "ns"}, "data": {"k": "v"}, "unknown": {"x": 1}}
            assert await client.update(CONFIG_MAPS, obj) == obj

    asyncio.run(scenario())
    assert stored[0]["unknown"] == {"x": 1}
