"""A data plane, scripted origins and raw clients, over loopback in one loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from mesh.balance.endpoint import Endpoint, LbPolicy
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryPolicy
from mesh.routing.table import Forward, Route, RouteTable, VirtualHost, WeightedCluster
from mesh.telemetry.istio import Peer
from sidecar.config import Cluster, FilterChain, HttpFilter, Listener, Snapshot
from sidecar.metrics import MetricsSource, render_metrics
from sidecar.records import SpanSink
from sidecar.server import DataPlane

OK = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nok"


_GRPC_NOISE = ("grpc", "async_generator_athrow")


def run(work: Coroutine[Any, Any, None], *, has_grpc: bool = False) -> None:
    """Run a test's body on the loop the sidecar uses. What the loop would only log fails the test.

    `has_grpc`: gRPC servers and clients of the test itself leave noise at their end (tasks, async generators); that does not.
    """
    problems: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(30):
            await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())
    # The streams of asyncio report scripted origins that are cancelled at the end.
    ours = [one for one in problems if not isinstance(one.get("exception"), asyncio.CancelledError)]
    if has_grpc:
        ours = [one for one in ours if not any(text in repr(one) for text in _GRPC_NOISE)]
    assert not ours, ours


@dataclass
class Origin:
    """An upstream server.

    `answer` gets each request (head and Content-Length body) and returns the bytes to send; None closes the connection.
    """

    answer: Callable[[bytes], bytes | None] = lambda _: OK
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    """Takes the whole connection instead of `answer`."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            await (self.script or self._serve_requests)(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _serve_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    body = await reader.readexactly(int(line.split(b":")[1]))
            self.requests.append(head + body)
            answer = self.answer(head + body)
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()


@asynccontextmanager
async def origin(
    answer: Callable[[bytes], bytes | None] | None = None,
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None,
) -> AsyncIterator[Origin]:
    """A running origin on a free port."""
    made = Origin(script=script)
    if answer is not None:
        made.answer = answer
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def cluster(name: str, *ports: int, outlier: OutlierConfig | None = None, **changes: Any) -> Cluster:
    return Cluster(
        name=name,
        lb_policy=changes.pop("lb_policy", LbPolicy.LEAST_REQUEST),
        endpoints=tuple(Endpoint(address="127.0.0.1", port=port) for port in ports),
        outlier=outlier,
        **changes,
    )


def forward(*clusters: str, retry: RetryPolicy | None = None, **changes: Any) -> Route:
    return Route(
        name="r",
        action=Forward(clusters=tuple(WeightedCluster(name=name) for name in clusters), retry=retry, **changes),
    )


def snapshot(
    clusters: list[Cluster], routes: list[Route] | None = None, *, http: HttpFilter | None = None, **host: Any
) -> Snapshot:
    """One HTTP listener, one virtual host `*`, by default one route to the first cluster."""
    table = RouteTable(
        name="table",
        virtual_hosts=(
            VirtualHost(name="v", domains=("*",), routes=tuple(routes or [forward(clusters[0].name)]), **host),
        ),
    )
    return Snapshot(
        listeners=(
            Listener(
                name="in",
                address="127.0.0.1",
                port=0,
                chains=(FilterChain(filter=http or HttpFilter(route_table="table")),),
            ),
        ),
        route_tables={"table": table},
        clusters={one.name: one for one in clusters},
    )


@asynccontextmanager
async def running(config: Snapshot, spans: SpanSink | None = None) -> AsyncIterator[DataPlane]:
    """A data plane that has applied `config`."""
    async with asyncio.TaskGroup() as tasks:
        plane = DataPlane(tasks, spans)
        await plane.apply(config)
        try:
            yield plane
        finally:
            plane.close()


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One raw connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: str = "/", *headers: str, method: str = "GET", host: str = "a.example") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def response(self, *, method: str = "GET") -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        status = int(first.split(" ")[1])
        body = b""
        if method == "HEAD" or status in (204, 304) or status < 200:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            body = await self._chunks(headers)
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return Response(status, headers, body)

    async def _chunks(self, headers: dict[str, str]) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[f"trailer {name.lower()}"] = value.strip()
        return body

    async def ask(self, path: str = "/", *headers: str, method: str = "GET", host: str = "a.example") -> Response:
        self.get(path, *headers, method=method, host=host)
        return await self.response(method=method)

    async def at_eof(self) -> bool:
        """Whether the proxy closes the connection without another byte."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def client(plane: DataPlane, listener: str = "in") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*plane.address(listener))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; the test's own time limit bounds it."""
    while not condition():
        await asyncio.sleep(0.005)


def total(plane: DataPlane, status: int, flags: str = "") -> int:
    """Requests counted with this outcome."""
    return sum(
        series.results[(status, flags)].count
        for series in plane.plane.stats.all_requests()
        if (status, flags) in series.results
    )


def metric(plane: DataPlane, name: str, cluster_name: str) -> float:
    """The value of `envoy_cluster_NAME` for one cluster, from the page that Prometheus reads."""
    page = render_metrics(MetricsSource(plane=plane.plane, own=Peer())).decode()
    wanted = f'envoy_cluster_{name}{{envoy_cluster_name="{cluster_name}"}} '
    return float(next(line.removeprefix(wanted) for line in page.splitlines() if line.startswith(wanted)))
