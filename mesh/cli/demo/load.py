"""The demo's client: `python -m mesh.cli.demo.load` sends requests on demand and counts what came back.

It is steered over HTTP on PORT (8081), one load at a time:

- `POST /run?url=http://webserver/&count=2000&concurrency=8`: send, wait, answer the summary.
- `POST /start?url=...&concurrency=8&rate=400`: send until stopped (rate in requests per second, all workers together).
- `GET /report`: the summary so far; `POST /stop`: end the load and answer its summary.
- `POST /trace?url=...`: one sampled request; answers its trace id.
"""

import asyncio
import contextlib
import os
import secrets
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field

from mesh.cli.demo.exchange import Request, Response, serve

REQUEST_TIMEOUT_S = 10.0
MAX_COUNT = 1_000_000
MAX_CONCURRENCY = 64
_MAX_SAMPLES = 100_000


@dataclass(slots=True)
class Tally:
    """What a load has seen so far. Latencies in milliseconds, at most the newest 100,000."""

    by_status: Counter[str] = field(default_factory=Counter)
    by_channel: Counter[str] = field(default_factory=Counter)
    by_pod: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """As JSON; `failed` counts answers of 500 and above and requests without an answer."""
        ordered = sorted(self.latencies_ms)
        failed = sum(n for status, n in self.by_status.items() if int(status) >= 500) + self.errors.total()
        return {
            "total": self.by_status.total() + self.errors.total(),
            "failed": failed,
            "by_status": dict(self.by_status),
            "by_channel": dict(self.by_channel),
            "by_pod": dict(self.by_pod),
            "errors": dict(self.errors),
            "p50_ms": round(ordered[len(ordered) // 2], 3) if ordered else None,
            "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3) if ordered else None,
        }


class Connection:
    """One keep-alive connection to one host."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"want an http:// URL, got {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, extra: str = "") -> tuple[int, dict[str, str]]:
        """Send one GET and read its answer. Raises OSError, IncompleteReadError, TimeoutError."""
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(f"GET {self._target} HTTP/1.1\r\nhost: {self._authority}\r\n{extra}\r\n".encode("latin-1"))
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
            await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return int(lines[0].split(" ", 2)[1]), headers

    async def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()


class Load:
    """One load: workers that share a budget of requests and, when asked, a rate."""

    def __init__(self, url: str, *, count: int, concurrency: int, rate: float) -> None:
        self.tally = Tally()
        self._url = url
        self._left = count
        self._concurrency = concurrency
        self._interval_s = 1.0 / rate if rate > 0 else 0.0
        self._next_at = time.monotonic()
        self._is_stopped = False

    def stop(self) -> None:
        """Let every worker end after the request it is in."""
        self._is_stopped = True

    async def run(self) -> None:
        """Send until the budget is used up or `stop` was called."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._concurrency):
                workers.create_task(self._work())

    async def _work(self) -> None:
        connection = Connection(self._url)
        while self._left > 0 and not self._is_stopped:
            self._left -= 1
            await self._pace()
            started = time.monotonic()
            try:
                status, headers = await connection.get()
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError) as exc:
                self.tally.errors[type(exc).__name__] += 1
                await connection.close()
                continue
            self._count(status, headers, (time.monotonic() - started) * 1000)
        await connection.close()

    async def _pace(self) -> None:
        if self._interval_s:
            now = time.monotonic()
            self._next_at = max(self._next_at + self._interval_s, now - 0.1)
            if self._next_at > now:
                await asyncio.sleep(self._next_at - now)

    def _count(self, status: int, headers: dict[str, str], latency_ms: float) -> None:
        self.tally.by_status[str(status)] += 1
        if status < 500:
            self.tally.by_channel[headers.get("x-channel", "none")] += 1
        self.tally.by_pod[headers.get("x-pod", "none")] += 1
        if len(self.tally.latencies_ms) < _MAX_SAMPLES:
            self.tally.latencies_ms.append(latency_ms)


class LoadServer:
    """The steering interface."""

    def __init__(self) -> None:
        self._load: Load | None = None
        self._task: asyncio.Task[None] | None = None

    async def handle(self, request: Request) -> Response:
        """One steering request."""
        try:
            match request.method, request.path:
                case "GET", "/-/healthz":
                    return Response(body=b"ok\n")
                case "POST", "/run":
                    load = _load_of(request.query, default_count=100)
                    await load.run()
                    return Response.of_json(load.tally.summary())
                case "POST", "/start":
                    return self._start(request)
                case "GET", "/report":
                    return Response.of_json(self._load.tally.summary() if self._load else {})
                case "POST", "/stop":
                    return await self._stop()
                case "POST", "/trace":
                    return await _trace(request.query.get("url", ""))
        except ValueError as exc:
            return Response(status=400, body=f"{exc}\n".encode())
        return Response(status=404, body=b"want /run, /start, /report, /stop or /trace\n")

    def _start(self, request: Request) -> Response:
        if self._task is not None and not self._task.done():
            raise ValueError("a load is running: stop it first")
        self._load = _load_of(request.query, default_count=MAX_COUNT)
        self._task = asyncio.get_running_loop().create_task(self._load.run())
        return Response.of_json({"started": True})

    async def _stop(self) -> Response:
        if self._load is None or self._task is None:
            raise ValueError("no load is running")
        self._load.stop()
        await self._task
        return Response.of_json(self._load.tally.summary())


def _load_of(query: dict[str, str], *, default_count: int) -> Load:
    count = min(int(query.get("count", default_count)), MAX_COUNT)
    concurrency = min(max(int(query.get("concurrency", "8")), 1), MAX_CONCURRENCY)
    Connection(query.get("url", ""))  # refuses a bad URL before anything starts
    return Load(query["url"], count=count, concurrency=concurrency, rate=float(query.get("rate", "0")))


async def _trace(url: str) -> Response:
    trace_id = secrets.token_hex(16)
    connection = Connection(url)
    try:
        status, headers = await connection.get(f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01\r\n")
    except (OSError, EOFError, TimeoutError) as exc:
        return Response(status=503, body=f"{type(exc).__name__}: {exc}\n".encode())
    finally:
        await connection.close()
    return Response.of_json({"trace_id": trace_id, "status": status, "pod": headers.get("x-pod", "")})


def main() -> None:
    """Serve until SIGTERM."""
    server = LoadServer()
    asyncio.run(serve(server.handle, int(os.environ.get("PORT", "8081"))))


if __name__ == "__main__":
    main()
