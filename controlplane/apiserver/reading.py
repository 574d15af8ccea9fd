"""get, list and watch."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from controlplane.apiserver import errors
from controlplane.apiserver.core import Core
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.listing import CHUNK_ITEMS, Page, key_range, list_chunks, read_page, revision_of
from controlplane.apiserver.negotiation import Form, form_of
from controlplane.apiserver.objects import parse, splice, to_served
from controlplane.apiserver.request import ListOptions
from controlplane.apiserver.responses import JSON_TYPE, json_response
from controlplane.apiserver.selection import Selection, selection_of
from controlplane.apiserver.tables.table import partial_metadata, table
from controlplane.apiserver.watching import (
    ADDED,
    EventWriter,
    View,
    WatchStream,
    bookmark,
    frame,
    line,
)
from controlplane.store.errors import CompactedError, StoreError
from mesh.api.resources import Json

CATCH_UP_S = 5.0
"""No bookmark earlier: a watch from the past may still be shown it, and a bookmark says that all has been."""


def shown(core: Core, kind: Kind, obj: Json, request: web.BaseRequest) -> Json:
    """One object in the form the client accepts."""
    match form_of(request.headers.get("Accept", "")):
        case Form.TABLE:
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            include = request.query.get("includeObject", "Metadata")
            return table(kind, [obj], metadata, now_s=core.clock.wall(), include=include)
        case Form.METADATA:
            return partial_metadata(obj)
        case Form.OBJECT:
            return obj


async def get_object(core: Core, request: web.BaseRequest, kind: Kind, namespace: str, name: str) -> web.Response:
    """GET of one object."""
    kv = await core.storage.read(kind, namespace, name)
    if kv is None:
        raise errors.not_found(kind.resource, name)
    if form_of(request.headers.get("Accept", "")) is Form.OBJECT:
        return json_response(to_served(kind.stored, kind.resource, kv))
    return json_response(shown(core, kind, parse(kind.resource, kv), request))


async def list_objects(
    core: Core, request: web.BaseRequest, kind: Kind, namespace: str, options: ListOptions
) -> web.StreamResponse:
    """GET of a collection."""
    page = await read_page(core.store, kind, namespace, selection_of(kind, options), options)
    form = form_of(request.headers.get("Accept", ""))
    if form is not Form.OBJECT:
        return json_response(_formed_list(core, request, kind, page, form))
    chunks = list_chunks(kind, page)
    if len(page.kvs) <= CHUNK_ITEMS:
        return json_response(b"".join(chunks))
    response = web.StreamResponse(headers={"Content-Type": JSON_TYPE, "Cache-Control": "no-cache, private"})
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


def _formed_list(core: Core, request: web.BaseRequest, kind: Kind, page: Page, form: Form) -> Json:
    objects = [parse(kind.resource, kv) for kv in page.kvs]
    metadata: Json = {"resourceVersion": str(page.revision)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
        if page.remaining:
            metadata["remainingItemCount"] = page.remaining
    if form is Form.TABLE:
        include = request.query.get("includeObject", "Metadata")
        return table(kind, objects, metadata, now_s=core.clock.wall(), include=include)
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": [partial_metadata(obj) for obj in objects],
    }


def _view(core: Core, request: web.BaseRequest, kind: Kind) -> View:
    form = form_of(request.headers.get("Accept", ""))
    include = request.query.get("includeObject", "Metadata")
    render: Callable[[bytes], bytes] | None = None
    if form is not Form.OBJECT:
        render = lambda data: orjson.dumps(shown(core, kind, orjson.loads(data), request))  # noqa: E731
    return View(kind, f"{form.value}/{include if form is Form.TABLE else ''}", render)


async def watch_objects(
    core: Core, request: web.BaseRequest, kind: Kind, namespace: str, options: ListOptions
) -> web.StreamResponse:
    """GET of a collection with watch=true: a line of JSON per event until the time is up or the client goes."""
    if len(core.watches) >= core.config.max_watches:
        raise errors.too_many_requests("too many watches are open on this server")
    selection = selection_of(kind, options)
    revision = revision_of(options.resource_version)
    response = web.StreamResponse(headers={"Content-Type": JSON_TYPE, "Cache-Control": "no-cache, private"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the watcher has gone")
    view = _view(core, request, kind)
    stream = WatchStream(transport, core.config.watch_buffer_bytes)
    async with _registered(core, stream):
        if not revision or options.send_initial_events:
            revision = await _send_existing(core, response, view, namespace, selection)
            if options.send_initial_events and options.allow_bookmarks:
                stream.write(bookmark(kind, revision, ends_initial_events=True))
        await _follow(core, stream, view, key_range(kind, namespace, selection), selection, revision, options)
    if not stream.was_cut and not transport.is_closing():
        await response.write_eof()
    return response


@asynccontextmanager
async def _registered(core: Core, stream: WatchStream) -> AsyncIterator[None]:
    core.watches.add(stream)
    try:
        yield
    finally:
        core.watches.discard(stream)


async def _send_existing(
    core: Core, response: web.StreamResponse, view: View, namespace: str, selection: Selection
) -> int:
    """Send what is there now as ADDED; returns the revision to go on from."""
    page = await read_page(core.store, view.kind, namespace, selection, ListOptions())
    for at in range(0, len(page.kvs), CHUNK_ITEMS):
        lines = []
        for kv in page.kvs[at : at + CHUNK_ITEMS]:
            obj = splice(view.kind.stored, view.kind.resource, kv.value, kv.mod_revision)
            lines.append(line(ADDED, obj if view.render is None else view.render(obj)))
        await response.write(b"".join(lines))
    return page.revision


async def _follow(
    core: Core,
    stream: WatchStream,
    view: View,
    keys: tuple[bytes, bytes],
    selection: Selection,
    revision: int,
    options: ListOptions,
) -> None:
    def on_lost(error: Exception) -> None:
        stream.write(_error_frame(error))
        stream.end()

    if revision > core.store.revision:
        # A store that was put back to an earlier state: the client's knowledge is from a future that didn't happen.
        on_lost(CompactedError(revision, core.store.revision))
        return
    try:
        watch = core.store.watch(
            *keys,
            from_revision=revision + 1,
            on_events=EventWriter(stream, view, selection, core.frames),
            on_lost=on_lost,
        )
    except StoreError as error:
        on_lost(error)
        return
    try:
        await _hold(core, stream, view.kind, options)
    finally:
        watch.cancel()


def _error_frame(error: Exception) -> bytes:
    if isinstance(error, CompactedError):
        status = errors.expired(f"too old resource version: {error.asked} ({error.compacted})")
    else:
        status = errors.unavailable(f"the watch was lost: {error}")
    return frame("ERROR", orjson.dumps(status.to_status()))


async def _hold(core: Core, stream: WatchStream, kind: Kind, options: ListOptions) -> None:
    """Wait until the watch's time is up, with bookmarks meanwhile if they are wanted."""
    longest = core.config.watch_timeout_s
    timeout_s = options.timeout_s or longest * (1 + core.rng.random())
    started = core.clock.now()
    deadline = started + timeout_s
    while not stream.ended.is_set() and (left_s := deadline - core.clock.now()) > 0:
        try:
            async with asyncio.timeout(min(left_s, core.config.bookmark_interval_s)):
                await stream.ended.wait()
        except TimeoutError:
            if options.allow_bookmarks and core.clock.now() - started >= CATCH_UP_S:
                stream.write(bookmark(kind, core.store.revision))
