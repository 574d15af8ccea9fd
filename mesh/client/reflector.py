"""List, then watch, for ever: keeps a sink in step with one collection of the API server.

Survives the server's death, restarts, expired versions and watches that end.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Protocol

from mesh.api.resources import Json, Resource
from mesh.backoff import Backoff
from mesh.client.errors import ApiError, GoneError
from mesh.client.rest import ApiClient
from mesh.client.watch import EventType, WatchEvent

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(base_s=0.1, cap_s=5.0, jitter=0.5)
_STABLE_AFTER_S = 5.0
"""A watch that lasted this long was a good one: the next failure starts the back-off anew."""


class Sink(Protocol):
    """Where a reflector puts what it sees. Called on the loop; must not block or raise."""

    def replace(self, items: Sequence[Json]) -> None:
        """The whole collection as it is now."""
        ...

    def apply(self, event: WatchEvent) -> None:
        """One change (never a BOOKMARK)."""
        ...


class Reflector:
    """Keeps `sink` equal to what the server holds. `run` never returns; its owner cancels it."""

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._rng = random.Random()
        self._version = ""
        self._failures = 0

    @property
    def resource_version(self) -> str:
        """The newest version the sink has seen; "" before the first list."""
        return self._version

    async def run(self) -> None:
        """List and watch until cancelled. Server errors are logged and tried again."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except GoneError as exc:
                logger.info("watch expired, listing again", extra=self._fields(exc))
                self._version = ""
                await self._back_off()
            except ApiError as exc:
                self._note(exc)
                await self._back_off()

    async def _list(self) -> None:
        result = await self._client.list(
            self._resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        self._sink.replace(result["items"])
        self._version = str(result.get("metadata", {}).get("resourceVersion", ""))

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_s=240.0 + 120.0 * self._rng.random(),  # spread, so that clients don't all come back at once
        )
        saw_events = False
        try:
            async with contextlib.aclosing(events) as stream:
                async for event in stream:
                    saw_events = True
                    self._take(event)
        finally:
            if loop.time() - started_at >= _STABLE_AFTER_S:
                self._failures = 0
        if not saw_events and loop.time() - started_at < 1.0:
            await self._back_off()  # a server that ends every watch at once must not be hammered

    def _take(self, event: WatchEvent) -> None:
        if event.type is not EventType.BOOKMARK:
            self._sink.apply(event)
        self._version = event.resource_version or self._version

    def _note(self, error: ApiError) -> None:
        """Decide where to go on after an error: from the last version when the server was just away, else from a list."""
        server_was_away = error.status in (0, 429, 502, 503, 504)
        if not server_was_away:
            self._version = ""
        level = logging.WARNING if self._failures in (0, 10) or not server_was_away else logging.DEBUG
        logger.log(level, "can't follow the API server, trying again", extra=self._fields(error))

    async def _back_off(self) -> None:
        self._failures += 1
        await asyncio.sleep(_BACKOFF.delay_s(self._failures, self._rng))

    def _fields(self, error: Exception) -> dict[str, str | int]:
        return {"resource": self._resource.plural, "failures": self._failures, "error": str(error)}
