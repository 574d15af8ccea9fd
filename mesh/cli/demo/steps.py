"""The seven steps of `mesh demo`. Each acts through the API like any user, and returns what it measured."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mesh.api.resources import DEPLOYMENTS, PODS, Json
from mesh.cli.applying import apply_files, wait_applied
from mesh.client.rest import ApiClient
from mesh.errors import MeshError

NAMESPACE = "shop"
URL = "http://webserver/"
COLORED_URL = "http://colored/"
_TRACES = "/api/v1/namespaces/meshwork-system/services/mesh-traces:15015/proxy/api/traces"
_SYNC = "/api/v1/namespaces/meshwork-system/services/mesh-discovery:15014/proxy/debug/syncz"
STEP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value and whether it is what was promised."""

    step: str
    name: str
    measured: str
    wanted: str
    is_ok: bool


@dataclass(slots=True)
class DemoRun:
    """The demo against one cluster. `say` prints a line of progress."""

    client: ApiClient
    examples: Path
    say: Callable[[str], None]
    figures: list[Figure] = field(default_factory=list)
    trace: Json = field(default_factory=dict)
    metrics: list[tuple[str, str, int]] = field(default_factory=list)
    """(workload, response code, requests) as the client's sidecar counted them."""

    async def run(self) -> None:
        """All steps in order."""
        for step in (
            self.deploy,
            self.split_by_labels,
            self.split_by_weight,
            self.eject_failing_pod,
            self.promote_canary,
            self.switch_blue_to_green,
            self.show_trace_and_metrics,
        ):
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await step()

    # --- Steps --------------------------------------------------------------------------------------------------------

    async def deploy(self) -> None:
        """Step 1: apply, until every pod is ready and every proxy has acknowledged its config."""
        started = time.monotonic()
        paths = [self.examples / "canary" / name for name in ("00-images.yaml", "10-webserver.yaml", "20-client.yaml")]
        applied = await apply_files(self.client, paths)
        await wait_applied(self.client, applied, on_progress=self.say, timeout_s=STEP_TIMEOUT_S)
        await self._wait_proxies(5)
        elapsed = time.monotonic() - started
        self._figure("1 deploy", "5 pods ready, 5 proxies in sync", f"{elapsed:.1f} s", "< 30 s", elapsed < 30)

    async def split_by_labels(self) -> None:
        """Step 2: no rule yet; one canary pod among four gets about a quarter."""
        # One request at a time: with several, least request rightly favours the pods that happen to answer faster.
        report = await self._run_load(URL, 1000, concurrency=1)
        share = _share(report, "canary")
        self._figure(
            "2 labels", "canary by labels alone, of 1,000", f"{share:.1%}", "25 % ± 6", abs(share - 0.25) <= 0.06
        )
        self._expect_no_failure("2 labels", report)

    async def split_by_weight(self) -> None:
        """Step 3: 90/10 by a VirtualService."""
        started = time.monotonic()
        applied = await apply_files(self.client, [self.examples / "canary" / "30-split-90-10.yaml"])
        await wait_applied(self.client, applied, on_progress=self.say, timeout_s=STEP_TIMEOUT_S)
        elapsed_ms = (time.monotonic() - started) * 1000
        self._figure(
            "3 weights", "apply until every proxy acknowledged", f"{elapsed_ms:.0f} ms", "< 2,000 ms", elapsed_ms < 2000
        )
        report = await self._run_load(URL, 2000)
        share = _share(report, "canary")
        self._figure(
            "3 weights", "canary by weight, of 2,000", f"{share:.1%}", "10 % ± 2.5", abs(share - 0.10) <= 0.025
        )
        self._expect_no_failure("3 weights", report)

    async def eject_failing_pod(self) -> None:
        """Step 4: one production pod answers 500: retries hide it, ejection takes it out."""
        pod = (await self._pods("channel=production"))[0]
        await self._post(f"{pod}:8080", "-/switch", {"status": "500"})
        self.say(f"{pod} answers 500 from now on")
        report = await self._run_load(URL, 2000)
        self._expect_no_failure("4 failing pod", report)
        stats = await self._client_sidecar_stats()
        retries = _sum(stats, "envoy_cluster_upstream_rq_retry", "outbound|80|production|")
        ejections = _sum(stats, "envoy_cluster_outlier_detection_ejections_total", "outbound|80|production|")
        self._figure("4 failing pod", "requests retried on another pod", str(retries), ">= 1", retries >= 1)
        self._figure("4 failing pod", f"ejections ({pod})", str(ejections), ">= 1", ejections >= 1)
        await self._post(f"{pod}:8080", "-/switch", {"status": "200"})

    async def promote_canary(self) -> None:
        """Step 5: everything to the canary, the old deployment to zero, under load."""
        await self._start_load(URL)
        applied = await apply_files(self.client, [self.examples / "canary" / "promote" / "40-promote.yaml"])
        await wait_applied(self.client, applied, on_progress=self.say, timeout_s=STEP_TIMEOUT_S)
        self.say("canary has 100 %; scaling production to 0")
        await self.client.patch(DEPLOYMENTS, "production", {"spec": {"replicas": 0}}, NAMESPACE, subresource="scale")
        await self._wait_gone("channel=production")
        report = await self._stop_load()
        self._expect_no_failure("5 promotion", report)
        after = await self._run_load(URL, 300)
        share = _share(after, "canary")
        self._figure("5 promotion", "canary after promotion", f"{share:.0%}", "100 %", share == 1.0)

    async def switch_blue_to_green(self) -> None:
        """Step 6: the Service's selector moves from blue to green under load."""
        applied = await apply_files(self.client, [self.examples / "blue-green" / "10-blue-and-green.yaml"])
        await wait_applied(self.client, applied, on_progress=self.say, timeout_s=STEP_TIMEOUT_S)
        await self._wait_channel(COLORED_URL, "blue")
        await self._start_load(COLORED_URL)
        await apply_files(self.client, [self.examples / "blue-green" / "20-switch-to-green.yaml"])
        self.say("selector switched to green")
        report = await self._until_reported("green")
        self._expect_no_failure("6 blue/green", report)
        after = await self._run_load(COLORED_URL, 200)
        share = _share(after, "green")
        self._figure("6 blue/green", "green after the switch", f"{share:.0%}", "100 %", share == 1.0)

    async def show_trace_and_metrics(self) -> None:
        """Step 7: one trace from end to end, and the counters that show the split."""
        made = orjson.loads(await self._post(f"{await self._client_pod()}:8081", "trace", {"url": URL}))
        self.trace = await self._find_trace(made["trace_id"])
        spans = len(self.trace.get("spans", ()))
        self._figure("7 telemetry", "spans of one trace", str(spans), "3 (client, server, app)", spans == 3)
        for labels, value in _samples(await self._client_sidecar_stats(), "istio_requests_total"):
            if labels.get("reporter") == "source" and labels.get("destination_service_name") in (
                "webserver",
                "colored",
            ):
                self.metrics.append(
                    (labels.get("destination_workload", ""), labels.get("response_code", ""), int(value))
                )
        seen = {workload for workload, _, _ in self.metrics}
        self._figure(
            "7 telemetry",
            "workloads in istio_requests_total",
            ", ".join(sorted(seen)),
            "production, canary, ...",
            {"production", "canary"} <= seen,
        )

    # --- What the steps are made of -------------------------------------------------------------------------------------

    def _figure(self, step: str, name: str, measured: str, wanted: str, is_ok: bool) -> None:
        self.figures.append(Figure(step=step, name=name, measured=measured, wanted=wanted, is_ok=is_ok))
        self.say(f"{name}: {measured} (want {wanted})")

    def _expect_no_failure(self, step: str, report: Mapping[str, Any]) -> None:
        failed, total = report["failed"], report["total"]
        self._figure(step, f"failed of {total:,} client requests", str(failed), "0", failed == 0 and total > 0)
        if report["errors"] or failed:
            self.say(f"answers by status {report['by_status']}, errors {report['errors']}")

    async def _pods(self, selector: str) -> list[str]:
        pods = await self.client.list(PODS, NAMESPACE, label_selector=selector)
        return [pod["metadata"]["name"] for pod in pods["items"] if not pod["metadata"].get("deletionTimestamp")]

    async def _client_pod(self) -> str:
        return (await self._pods("app=client"))[0]

    async def _post(self, target: str, path: str, query: Mapping[str, str]) -> bytes:
        return await self.client.raw(
            "POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{target}/proxy/{path}", query=dict(query)
        )

    async def _client_sidecar_stats(self) -> str:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{await self._client_pod()}:15020/proxy/stats/prometheus"
        return (await self.client.raw("GET", path)).decode()

    async def _run_load(self, url: str, count: int, concurrency: int = 8) -> Json:
        query = {"url": url, "count": str(count), "concurrency": str(concurrency)}
        report: Json = orjson.loads(await self._post(f"{await self._client_pod()}:8081", "run", query))
        return report

    async def _start_load(self, url: str) -> None:
        await self._post(f"{await self._client_pod()}:8081", "start", {"url": url, "concurrency": "8", "rate": "300"})

    async def _stop_load(self) -> Json:
        report: Json = orjson.loads(await self._post(f"{await self._client_pod()}:8081", "stop", {}))
        return report

    async def _until_reported(self, channel: str) -> Json:
        """Let the load go on until `channel` has answered for a second, then stop it."""
        pod = await self._client_pod()
        while True:
            raw = await self.client.raw("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy/report")
            if orjson.loads(raw)["by_channel"].get(channel, 0) >= 300:
                return await self._stop_load()
            await asyncio.sleep(0.2)

    async def _wait_channel(self, url: str, channel: str) -> None:
        """Until requests to `url` are answered by `channel` only."""
        while _share(await self._run_load(url, 20), channel) < 1.0:
            await asyncio.sleep(0.2)

    async def _wait_gone(self, selector: str) -> None:
        while (await self.client.list(PODS, NAMESPACE, label_selector=selector))["items"]:
            await asyncio.sleep(0.2)

    async def _wait_proxies(self, count: int) -> None:
        """Until `count` proxies are connected and none has an unacknowledged or refused push."""
        while True:
            proxies = orjson.loads(await self.client.raw("GET", _SYNC))["proxies"]
            in_sync = [
                p for p in proxies if all(t["sent"] == t["acked"] and not t.get("error") for t in p["types"].values())
            ]
            if len(in_sync) >= count and len(in_sync) == len(proxies):
                return
            await asyncio.sleep(0.1)

    async def _find_trace(self, trace_id: str) -> Json:
        """The trace once its three spans have arrived, or what there is after ten seconds."""
        trace: Json = {}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                trace = orjson.loads(await self.client.raw("GET", f"{_TRACES}/{trace_id}"))
            except MeshError as exc:
                self.say(f"trace {trace_id} is not there yet ({exc})")
            if len(trace.get("spans", ())) >= 3:
                break
            await asyncio.sleep(0.3)
        return trace


def _share(report: Mapping[str, Any], channel: str) -> float:
    answered = sum(report["by_channel"].values())
    return float(report["by_channel"].get(channel, 0) / answered) if answered else 0.0


_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of each sample of `name` in a Prometheus text page."""
    found = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is not None and match[1] == name:
            found.append((dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return found


def _sum(text: str, name: str, cluster_prefix: str) -> int:
    return int(
        sum(
            value
            for labels, value in _samples(text, name)
            if any(v.startswith(cluster_prefix) for v in labels.values())
        )
    )
