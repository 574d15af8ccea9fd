"""Watches: one event is encoded once for all who see it alike, and written straight to their connections.

Measured (facts/control-plane.md): a prebuilt chunk written to each transport costs about 9 us and 8.5 KiB per watcher,
a queue and a task each twice as much.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.objects import parse, splice
from controlplane.apiserver.selection import Selection
from controlplane.store.protocol import Event, EventType, KeyValue, Revision
from mesh.api.resources import Json

CACHED_FRAMES = 4096
ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"

Render = Callable[[bytes], bytes]
"""From an object's JSON to the JSON the watcher wants to see (a table, say)."""


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body. Source: RFC 9112 s7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def line(type_: str, obj: bytes) -> bytes:
    """One event of a watch."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), obj)


def frame(type_: str, obj: bytes) -> bytes:
    """One event of a watch, as a chunk."""
    return chunk(line(type_, obj))


def bookmark(kind: Kind, revision: int, *, ends_initial_events: bool = False) -> bytes:
    """A line that says: everything up to `revision` has been sent."""
    metadata: Json = {"resourceVersion": str(revision), "creationTimestamp": None}
    if ends_initial_events:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    resource = kind.resource
    obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return frame("BOOKMARK", orjson.dumps(obj))


@dataclass(frozen=True, slots=True)
class View:
    """How a watcher sees objects of a kind; `key` tells equal views apart from others."""

    kind: Kind
    key: str
    render: Render | None


class FrameCache:
    """Encoded events, shared by all watchers with an equal view. Bounded; an evicted frame is encoded again."""

    def __init__(self, capacity: int = CACHED_FRAMES) -> None:
        self._frames: OrderedDict[tuple[bytes, int, str, str, str], bytes] = OrderedDict()
        self._objects: OrderedDict[tuple[bytes, int], Json] = OrderedDict()
        self._capacity = capacity

    def frame(self, view: View, type_: str, kv: KeyValue, revision: int) -> bytes:
        """The line for `kv`'s value as of `revision`."""
        key = (kv.key, revision, type_, view.kind.resource.version, view.key)
        found = self._frames.get(key)
        if found is None:
            obj = splice(view.kind.stored, view.kind.resource, kv.value, revision)
            found = frame(type_, obj if view.render is None else view.render(obj))
            self._frames[key] = found
            if len(self._frames) > self._capacity:
                self._frames.popitem(last=False)
        return found

    def parsed(self, view: View, kv: KeyValue) -> Json:
        """The object of `kv`, for selectors: read-only."""
        key = (kv.key, kv.mod_revision)
        found = self._objects.get(key)
        if found is None:
            found = parse(view.kind.resource, kv)
            self._objects[key] = found
            if len(self._objects) > self._capacity:
                self._objects.popitem(last=False)
        return found


def change_of(event: Event, matches: Callable[[KeyValue], bool] | None) -> tuple[str, KeyValue] | None:
    """What a watcher with a selector sees of an event: its type and the value to show, or None.

    An object that starts to match is ADDED and one that stops to is DELETED, as if the rest did not exist.
    """
    if event.type is EventType.DELETE:
        if event.previous is None:
            return (DELETED, event.kv) if matches is None else None
        return (DELETED, event.previous) if matches is None or matches(event.previous) else None
    is_new = event.kv.create_revision == event.kv.mod_revision
    if matches is None:
        return (ADDED if is_new else MODIFIED), event.kv
    matched_before = not is_new and (event.previous is None or matches(event.previous))
    if matches(event.kv):
        return (MODIFIED if matched_before else ADDED), event.kv
    if matched_before:
        return DELETED, event.previous or event.kv
    return None


class WatchStream:
    """One watcher's connection. It is never waited for: a reader that lags too far is cut and lists again."""

    def __init__(self, transport: asyncio.WriteTransport, limit_bytes: int) -> None:
        self._transport = transport
        self._limit_bytes = limit_bytes
        self.ended = asyncio.Event()
        self.was_cut = False
        self.last_revision = 0

    def write(self, data: bytes) -> None:
        """Send chunks; drops them when the stream has ended."""
        if self.ended.is_set():
            return
        if self._transport.is_closing():
            self.ended.set()
        elif self._transport.get_write_buffer_size() + len(data) > self._limit_bytes:
            self.was_cut = True
            self._transport.abort()
            self.ended.set()
        else:
            self._transport.write(data)

    def end(self) -> None:
        """No more will be written."""
        self.ended.set()

    def close(self) -> None:
        """The server stops: end, without waiting for one who has not read what was sent."""
        if not self._transport.is_closing() and self._transport.get_write_buffer_size() > 0:
            self.was_cut = True
            self._transport.abort()
        self.ended.set()


class EventWriter:
    """The callback of one watch: filters events and writes their frames."""

    def __init__(self, stream: WatchStream, view: View, selection: Selection, cache: FrameCache) -> None:
        self._stream = stream
        self._view = view
        self._cache = cache
        self._matches: Callable[[KeyValue], bool] | None = None
        if (wanted := selection.matches) is not None:
            self._matches = lambda kv: wanted(cache.parsed(view, kv))

    def __call__(self, revision: Revision, events: Sequence[Event]) -> None:
        self._stream.last_revision = revision
        for event in events:
            change = change_of(event, self._matches)
            if change is None:
                continue
            type_, kv = change
            if not kv.value:
                kv = _nameless(self._view.kind, kv)
            self._stream.write(self._cache.frame(self._view, type_, kv, revision))


def _nameless(kind: Kind, kv: KeyValue) -> KeyValue:
    """A deleted object whose last version has been compacted away: its key still says who it was."""
    *_, namespace, name = kv.key.decode().split("/")
    metadata = {"resourceVersion": "", "name": name}
    if kind.resource.is_namespaced:
        metadata["namespace"] = namespace
    resource = kind.stored
    value = orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})
    return KeyValue(kv.key, value, kv.create_revision, kv.mod_revision, kv.version)
