"""What the own ports of several workers answer: metrics, admin pages, readiness."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mesh.telemetry.exposition import CONTENT_TYPE, Exposition, label_text
from sidecar.admin import PATHS, flat_stats
from sidecar.metrics import render_process, render_xds
from sidecar.responder import Answer, Handler, Later, json, text
from sidecar.workers.group import WorkerGroup
from sidecar.workers.merge import MergedMetrics, merge, parse_page, render_page
from sidecar.workers.rows import merge_documents

_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """How the whole is."""

    is_ready: bool
    identity: Mapping[str, Any]
    xds_status: Mapping[str, Any]
    xds_counters: Mapping[str, int]
    restarts: Mapping[int, int]
    """By worker: how often it has been started again."""
    started: float
    """Monotonic seconds."""


class GroupPages:
    """Asks the workers and puts their pages together."""

    def __init__(self, group: WorkerGroup, state: Callable[[], GroupState], tasks: asyncio.TaskGroup) -> None:
        self._group = group
        self._state = state
        self._merged = MergedMetrics()
        self.admin: Handler = lambda path, _: Later(self._admin(path), tasks)
        self.metrics: Handler = lambda path, _: Later(self._metrics_port(path), tasks)
        self.ready: Handler = lambda path, _: self._ready(path)

    def on_ended(self, index: int) -> None:
        """A worker has ended."""
        self._merged.on_ended(index)

    async def _admin(self, path: str) -> Answer | None:
        state = self._state()
        match path:
            case "/":
                return text(200, "\n".join(PATHS))
            case "/stats":
                return text(200, flat_stats(await self._page()))
            case "/metrics" | "/stats/prometheus":
                return Answer(200, await self._page(), CONTENT_TYPE)
            case "/ready" | "/healthz/ready":
                return self._ready(path)
            case "/server_info":
                return json(self._server_info(state))
            case "/config_dump":
                dump = await self._documents(path)
                return json({**dump, "xds": dict(state.xds_status)} if isinstance(dump, dict) else dump)
            case _:
                return await self._other(path)

    async def _documents(self, path: str) -> Any:
        shown = await self._group.show(path)
        return merge_documents({index: msgspec.json.decode(body) for index, (body, _) in shown.items()})

    async def _other(self, path: str) -> Answer | None:
        shown = await self._group.show(path)
        if not shown:
            return None
        if all(kind == _JSON for _, kind in shown.values()):
            return json(merge_documents({index: msgspec.json.decode(body) for index, (body, _) in shown.items()}))
        parts = (f"worker {index}:\n{body.decode(errors='replace')}" for index, (body, _) in sorted(shown.items()))
        return text(200, "\n".join(parts))

    async def _metrics_port(self, path: str) -> Answer | None:
        if path in ("/metrics", "/stats/prometheus"):
            return Answer(200, await self._page(), CONTENT_TYPE)
        return text(200, "/metrics\n/stats/prometheus") if path == "/" else None

    def _ready(self, path: str) -> Answer | None:
        if path not in ("/ready", "/healthz/ready"):
            return None
        if self._state().is_ready:
            return text(200, "ready")
        return text(503, "not ready: waiting for the first complete configuration or for a worker, or draining")

    async def _page(self) -> bytes:
        scraped = await self._group.scrape()
        theirs = self._merged.page(scraped)
        own = parse_page(self._own_page(scraped).decode())
        return render_page(merge([theirs, own]))

    def _own_page(self, scraped: Mapping[int, bytes | None]) -> bytes:
        """What the control process knows by itself."""
        state, page = self._state(), Exposition()
        render_xds(page, state.xds_counters)
        render_process(page)
        families: tuple[tuple[str, str, str, Callable[[int], float]], ...] = (
            ("worker_restarts_total", "counter", "Times it was started again.", lambda i: state.restarts[i]),
            ("worker_up", "gauge", "1: it has the configuration.", lambda i: int(i in self._group.links)),
            (
                "worker_left_out",
                "gauge",
                "1: it did not answer this scrape; its counters are old, its gauges missing.",
                lambda i: int(scraped.get(i, b"") is None),
            ),
            (
                "worker_resident_memory_bytes",
                "gauge",
                "Its resident memory, with what it shares.",
                lambda i: self._merged.value(i, "process_resident_memory_bytes"),
            ),
        )
        for name, kind, help_text, value in families:
            page.family(f"meshwork_sidecar_{name}", kind, help_text)
            for index in state.restarts:
                page.sample(f"meshwork_sidecar_{name}", label_text({"worker": str(index)}), value(index))
        return page.render()

    def _server_info(self, state: GroupState) -> dict[str, Any]:
        return {
            "name": "meshwork",
            "state": "LIVE" if state.is_ready else "NOT_READY",
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - state.started, 3),
            "node": dict(state.identity),
            "workers": [
                {"worker": index, "pid": link.pid, "restarts": state.restarts[index]}
                for index, link in sorted(self._group.links.items())
            ],
        }
