"""The API client: typed verbs over plain JSON objects.

Source: Kubernetes API concepts (verbs, patch types, list continuation, watches).
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import orjson

from mesh.api.resources import Json, Resource
from mesh.client.config import ClientConfig
from mesh.client.errors import GoneError, UnavailableError
from mesh.client.transport import Transport
from mesh.client.watch import LineSplitter, WatchEvent, parse_event

__all__ = ["ApiClient", "ClientConfig", "PatchType", "WatchEvent"]

_PAGE_SIZE = 500
_WATCH_TIMEOUT_S = 300.0
_WATCH_SILENCE_MARGIN_S = 15.0


class PatchType(Enum):
    """The media type of a patch."""

    JSON = "application/json-patch+json"
    """RFC 6902: a list of operations."""
    MERGE = "application/merge-patch+json"
    """RFC 7386: null removes."""
    STRATEGIC = "application/strategic-merge-patch+json"
    """Kubernetes' own: lists merge by key. Not for custom resources."""
    APPLY = "application/apply-patch+yaml"
    """Server-side apply; needs `field_manager`."""


class ApiClient:
    """A client of one API server. An async context manager; every method may raise `ApiError` and its children.

    One instance is shared by all tasks of a process. Objects returned belong to the caller.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._transport = Transport(config)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str = "") -> Json:
        """One object. Raises NotFoundError."""
        return await self._json("GET", _path(resource, name, namespace, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
    ) -> Json:
        """The list object: every item, or the first `limit` when that is > 0, and metadata.resourceVersion to watch from.

        Pages are fetched and joined; they show one moment. Items get apiVersion and kind when the server left them out.
        """
        query = _selectors(label_selector, field_selector)
        path = resource.collection_path(namespace)
        try:
            result = await self._list_pages(path, query, limit)
        except GoneError:  # the continue token expired half-way: take it in one piece
            result = await self._json("GET", path, query)
        for item in result["items"]:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return result

    async def _list_pages(self, path: str, query: dict[str, str], limit: int) -> Json:
        first = await self._json("GET", path, {**query, "limit": str(limit or _PAGE_SIZE)})
        items: list[Json] = first.setdefault("items", None) or []
        first["items"] = items
        page = first
        while not limit and (token := page.get("metadata", {}).get("continue")):
            page = await self._json("GET", path, {**query, "limit": str(_PAGE_SIZE), "continue": token})
            items.extend(page.get("items") or [])
        if not limit and "metadata" in first:
            for field in ("continue", "remainingItemCount"):
                first["metadata"].pop(field, None)
        return first

    async def create(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
    ) -> Json:
        """POST `obj`; with `subresource`, to `name`'s subresource (binding, token). Raises AlreadyExistsError, InvalidError.

        The namespace is the argument, else the object's own. DEVIATION from a plain POST: after a lost connection it is unknown
        whether the object was created; the caller finds out by AlreadyExistsError (named objects) or from its cache.
        """
        where = namespace if namespace is not None else obj.get("metadata", {}).get("namespace")
        path = _path(resource, name, where, subresource) if name else resource.collection_path(where)
        return await self._json("POST", path, _dry_run(dry_run), obj)

    async def update(
        self, resource: Resource, obj: Mapping[str, Any], *, subresource: str = "", dry_run: bool = False
    ) -> Json:
        """PUT the whole object. Raises ConflictError when metadata.resourceVersion is not the stored one's."""
        meta = obj["metadata"]
        path = _path(resource, meta["name"], meta.get("namespace"), subresource)
        return await self._json("PUT", path, _dry_run(dry_run), obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        namespace: str | None = None,
        *,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
        dry_run: bool = False,
    ) -> Json:
        """Change parts of an object. A resourceVersion inside a merge patch makes it conditional (ConflictError)."""
        query = _dry_run(dry_run)
        if field_manager:
            query["fieldManager"] = field_manager
        return await self._json(
            "PATCH", _path(resource, name, namespace, subresource), query, patch, content_type=patch_type.value
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Ask for deletion. `propagation` is Background, Foreground or Orphan.

        With `uid` or `resource_version`, only that incarnation or version is deleted (ConflictError otherwise).
        Raises NotFoundError.
        """
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if preconditions:
            options["preconditions"] = preconditions
        await self._json("DELETE", _path(resource, name, namespace), None, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = _WATCH_TIMEOUT_S,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version` (empty: first what exists, as ADDED), bookmarks included.

        Ends cleanly after `timeout_s`; go on from the last event's resource_version. Raises GoneError when the version has
        expired, UnavailableError when the connection is lost. Never resumes by itself: `Reflector` does.
        """
        query = _selectors(label_selector, field_selector)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(max(1, int(timeout_s)))}
        if resource_version:
            query["resourceVersion"] = resource_version
        path = resource.collection_path(namespace)
        splitter = LineSplitter()
        silence_s = timeout_s + _WATCH_SILENCE_MARGIN_S
        async with contextlib.aclosing(self._transport.stream(path, query=query, read_timeout_s=silence_s)) as chunks:
            async for chunk in chunks:
                for line in splitter.feed(chunk):
                    event = parse_event(line, request=f"watch {path}")
                    event.object.setdefault("apiVersion", resource.api_version)
                    event.object.setdefault("kind", resource.kind)
                    yield event

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: str = "",
    ) -> bytes:
        """Any request by path, asking for the media type `accept`; the answer's bytes. Raises ApiError for a status >= 300."""
        return await self._transport.request(method, path, query=query, body=body, accept=accept)

    async def stream(self, path: str, *, query: Mapping[str, str] | None = None) -> AsyncGenerator[bytes, None]:
        """GET `path` and yield the body as it comes (logs that follow). Close it, or read it to its end."""
        async with contextlib.aclosing(self._transport.stream(path, query=query)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Json:
        data = orjson.dumps(body) if body is not None else None
        raw = await self._transport.request(method, path, query=query, body=data, content_type=content_type)
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError as exc:
            raise UnavailableError(
                f"{method} {path}: the answer is not JSON: {raw[:80]!r}", reason="BadAnswer"
            ) from exc
        if not isinstance(answer, dict):
            raise UnavailableError(f"{method} {path}: the answer is not an object", reason="BadAnswer")
        return answer


def _path(resource: Resource, name: str, namespace: str | None, subresource: str = "") -> str:
    if resource.is_namespaced and not namespace:
        raise ValueError(f"{resource.plural} are namespaced: name {name!r} needs a namespace")
    path = resource.object_path(quote(name, safe=":"), namespace)
    return f"{path}/{subresource}" if subresource else path


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = (("labelSelector", label_selector), ("fieldSelector", field_selector))
    return {name: value for name, value in pairs if value}


def _dry_run(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}
