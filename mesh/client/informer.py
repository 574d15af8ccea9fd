"""A read-only cache of one collection, kept fresh by a reflector, with handlers and indexes."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from mesh.api.resources import Json, Resource
from mesh.client.reflector import Reflector
from mesh.client.rest import ApiClient
from mesh.client.watch import EventType, WatchEvent
from mesh.errors import MeshError

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Key = tuple[str, str]


class ChangeType(Enum):
    """What happened to the cached object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change of the cache. `old` is None for ADDED, `new` is None for DELETED."""

    type: ChangeType
    old: T | None
    new: T | None

    @property
    def object(self) -> T:
        """The newest state known: `new`, or `old` after deletion."""
        value = self.new if self.new is not None else self.old
        if value is None:
            raise ValueError("a change without an object")
        return value


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    value: T
    resource_version: str


class _Index(Generic[T]):
    """Values by derived keys."""

    def __init__(self, keys: Callable[[T], Iterable[str]]) -> None:
        self._keys = keys
        self._values: dict[str, dict[_Key, T]] = {}

    def put(self, key: _Key, value: T) -> None:
        for name in self._keys(value):
            self._values.setdefault(name, {})[key] = value

    def remove(self, key: _Key, value: T) -> None:
        for name in self._keys(value):
            if bucket := self._values.get(name):
                bucket.pop(key, None)
                if not bucket:
                    del self._values[name]

    def get(self, name: str) -> tuple[T, ...]:
        return tuple(self._values.get(name, {}).values())


class Informer(Generic[T]):
    """The cache of one resource: what the server held a moment ago.

    `decode` turns an object's JSON into the cached value (`Pod.of`, or `lambda obj: obj`). An object it refuses (MeshError)
    is logged and left as it was in the cache. Cached values are shared: read-only. All methods are for the loop's thread.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        decode: Callable[[Json], T],
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._resource = resource
        self._decode = decode
        self._entries: dict[_Key, _Entry[T]] = {}
        self._indexes: dict[str, _Index[T]] = {}
        self._handlers: list[Callable[[Change[T]], None]] = []
        self._synced = asyncio.Event()
        self._reflector = Reflector(
            client,
            resource,
            self,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        )

    @property
    def resource(self) -> Resource:
        """What is cached."""
        return self._resource

    @property
    def has_synced(self) -> bool:
        """The first list is in the cache, and the handlers have seen it."""
        return self._synced.is_set()

    @property
    def resource_version(self) -> str:
        """How new the cache is; "" before the first list."""
        return self._reflector.resource_version

    async def wait_synced(self) -> None:
        """Wait until `has_synced`."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow the server until cancelled. Owned by a TaskGroup; run it once."""
        await self._reflector.run()

    def add_handler(self, on_change: Callable[[Change[T]], None]) -> None:
        """Call `on_change` after each change of the cache, on the loop. It must not block or raise.

        What is already cached is shown as ADDED at once. After a gap in the watch, changes in between come as one.
        """
        self._handlers.append(on_change)
        for entry in tuple(self._entries.values()):
            on_change(Change(ChangeType.ADDED, None, entry.value))

    def add_index(self, name: str, keys: Callable[[T], Iterable[str]]) -> None:
        """Let `by_index(name, key)` find values by what `keys` (pure) derives from them."""
        index = _Index(keys)
        for key, entry in self._entries.items():
            index.put(key, entry.value)
        self._indexes[name] = index

    def get(self, namespace: str, name: str) -> T | None:
        """One object; namespace "" for cluster-scoped ones."""
        entry = self._entries.get((namespace, name))
        return entry.value if entry else None

    def all(self, namespace: str | None = None) -> tuple[T, ...]:
        """Every cached object, of one namespace when given. Costs a pass over the whole cache."""
        if namespace is None:
            return tuple(entry.value for entry in self._entries.values())
        return tuple(entry.value for key, entry in self._entries.items() if key[0] == namespace)

    def by_index(self, name: str, key: str) -> tuple[T, ...]:
        """The values whose index `name` has `key`. Raises KeyError for an index that was not added."""
        return self._indexes[name].get(key)

    # -- the reflector's sink

    def replace(self, items: Sequence[Json]) -> None:
        """Take over a fresh list, telling the handlers the differences only."""
        present = {_key_of(item) for item in items}
        for key in [key for key in self._entries if key not in present]:
            self._remove(key)
        for item in items:
            self._put(item)
        self._synced.set()

    def apply(self, event: WatchEvent) -> None:
        """Take over one change."""
        if event.type is EventType.DELETED:
            self._remove(_key_of(event.object), last=event.object)
        else:
            self._put(event.object)

    def _put(self, obj: Json) -> None:
        key = _key_of(obj)
        version = str(obj.get("metadata", {}).get("resourceVersion", ""))
        old = self._entries.get(key)
        if old is not None and version and old.resource_version == version:
            return
        value = self._decoded(key, obj)
        if value is None:
            return
        for index in self._indexes.values():
            if old is not None:
                index.remove(key, old.value)
            index.put(key, value)
        self._entries[key] = _Entry(value, version)
        if old is None:
            self._tell(Change(ChangeType.ADDED, None, value))
        else:
            self._tell(Change(ChangeType.MODIFIED, old.value, value))

    def _remove(self, key: _Key, *, last: Json | None = None) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for index in self._indexes.values():
            index.remove(key, entry.value)
        final = self._decoded(key, last) if last is not None else None
        self._tell(Change(ChangeType.DELETED, final if final is not None else entry.value, None))

    def _decoded(self, key: _Key, obj: Json) -> T | None:
        try:
            return self._decode(obj)
        except MeshError as exc:
            logger.error(
                "unreadable object, keeping what was cached",
                extra={"resource": self._resource.plural, "namespace": key[0], "object": key[1], "error": str(exc)},
            )
            return None

    def _tell(self, change: Change[T]) -> None:
        for handler in self._handlers:
            handler(change)


def _key_of(obj: Json) -> _Key:
    meta = obj.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")
