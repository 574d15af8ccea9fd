"""Events about objects: aggregated, limited per object, sent in the background, never in the way of the caller.

Source: Kubernetes API reference, core/v1 Event; client-go's event correlator for the idea of counting repeats.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mesh.api.meta import ObjectReference, ObjectView
from mesh.api.resources import EVENTS, Json
from mesh.client.errors import ApiError, NotFoundError
from mesh.client.rest import ApiClient
from mesh.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

_MAX_PENDING = 1000
_MAX_REMEMBERED = 4096
_BURST_PER_OBJECT = 25.0
_REFILL_PER_S = 1.0 / 60.0
_MAX_MESSAGE_CHARS = 1024

_EventKey = tuple[str, str, str, str, str, str]


@dataclass(slots=True)
class _Series:
    """One event and how often it happened."""

    reference: Json
    type: str
    reason: str
    message: str
    first_wall_s: float
    last_wall_s: float
    count: int = 0
    name: str = ""
    """The stored Event's name; "" until it was sent."""


@dataclass(slots=True)
class _Budget:
    """A token bucket."""

    tokens: float
    at_s: float


class EventRecorder:
    """Records events of one component. `run` sends them; it is owned by a TaskGroup.

    The same (object, type, reason, message) again raises the stored Event's count. Bounds: 1000 events wait at most, 25 in a row per
    object, then one a minute; what is over is dropped and counted in `dropped`. An event is best effort: it is lost when the API
    server can't be reached.
    """

    def __init__(self, client: ApiClient, component: str, *, host: str = "", clock: Clock | None = None) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock: Clock = clock or SystemClock()
        self._series: OrderedDict[_EventKey, _Series] = OrderedDict()
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._pending: OrderedDict[_EventKey, None] = OrderedDict()
        self._wake = asyncio.Event()
        self.dropped = 0
        """Events not recorded because a bound was reached."""

    def event(
        self, about: Mapping[str, Any] | ObjectView | ObjectReference, type_: str, reason: str, message: str
    ) -> None:
        """Record that `reason` happened to `about`. `type_` is Normal or Warning. Never blocks, never raises."""
        reference = _reference(about)
        message = message[:_MAX_MESSAGE_CHARS]
        key = _key(reference, type_, reason, message)
        if not self._may_record(key, reference):
            self.dropped += 1
            return
        now = self._clock.wall()
        series = self._series.get(key)
        if series is None:
            series = _Series(reference, type_, reason, message, now, now)
            self._series[key] = series
        series.count += 1
        series.last_wall_s = now
        self._series.move_to_end(key)
        self._pending[key] = None
        self._forget_old()
        self._wake.set()

    async def run(self) -> None:
        """Send what is recorded, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                key, _ = self._pending.popitem(last=False)
                if (series := self._series.get(key)) is not None:
                    await self._send(series)

    def _may_record(self, key: _EventKey, reference: Json) -> bool:
        if key not in self._pending and len(self._pending) >= _MAX_PENDING:
            return False
        name = f"{reference.get('kind')}/{reference.get('namespace')}/{reference.get('name')}/{reference.get('uid')}"
        now = self._clock.now()
        budget = self._budgets.setdefault(name, _Budget(_BURST_PER_OBJECT, now))
        self._budgets.move_to_end(name)
        if len(self._budgets) > _MAX_REMEMBERED:
            self._budgets.popitem(last=False)
        budget.tokens = min(_BURST_PER_OBJECT, budget.tokens + (now - budget.at_s) * _REFILL_PER_S)
        budget.at_s = now
        if budget.tokens < 1.0:
            return False
        budget.tokens -= 1.0
        return True

    def _forget_old(self) -> None:
        while len(self._series) > _MAX_REMEMBERED:
            key, _ = self._series.popitem(last=False)
            self._pending.pop(key, None)

    async def _send(self, series: _Series) -> None:
        try:
            if series.name:
                try:
                    await self._raise_count(series)
                    return
                except NotFoundError:
                    series.name = ""  # it expired: start a new one
                    series.count = 1
                    series.first_wall_s = series.last_wall_s
            await self._create(series)
        except ApiError as exc:
            logger.info("event not recorded", extra={"reason": series.reason, "error": str(exc)})

    async def _raise_count(self, series: _Series) -> None:
        patch = {"count": series.count, "lastTimestamp": _timestamp(series.last_wall_s)}
        await self._client.patch(EVENTS, series.name, patch, _namespace(series.reference))

    async def _create(self, series: _Series) -> None:
        namespace = _namespace(series.reference)
        name = f"{series.reference.get('name')}.{int(series.first_wall_s * 1e9):x}"
        created = await self._client.create(EVENTS, self._body(series, name, namespace), namespace)
        series.name = str(created["metadata"]["name"])

    def _body(self, series: _Series, name: str, namespace: str) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": series.reference,
            "type": series.type,
            "reason": series.reason,
            "message": series.message,
            "count": series.count,
            "firstTimestamp": _timestamp(series.first_wall_s),
            "lastTimestamp": _timestamp(series.last_wall_s),
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }


def _reference(about: Mapping[str, Any] | ObjectView | ObjectReference) -> Json:
    """The involvedObject of an Event."""
    match about:
        case ObjectReference():
            fields = {k: v for k, v in about.to_json().items() if v}
        case ObjectView():
            fields = _reference_fields(about.api_version, about.kind, about.metadata.to_json())
        case _:
            fields = _reference_fields(about.get("apiVersion"), about.get("kind"), about.get("metadata") or {})
    return fields


def _reference_fields(api_version: Any, kind: Any, meta: Mapping[str, Any]) -> Json:
    fields = {"apiVersion": api_version, "kind": kind}
    fields |= {k: meta.get(k) for k in ("namespace", "name", "uid", "resourceVersion")}
    return {k: v for k, v in fields.items() if v}


def _key(reference: Json, type_: str, reason: str, message: str) -> _EventKey:
    where = f"{reference.get('namespace', '')}/{reference.get('name', '')}"
    return (str(reference.get("kind", "")), where, str(reference.get("uid", "")), type_, reason, message)


def _namespace(reference: Json) -> str:
    """Events about cluster-scoped objects live in `default`."""
    return str(reference.get("namespace") or "default")


def _timestamp(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
