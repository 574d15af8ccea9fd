"""The whole way of requests and responses through the real connections, on fake transports and without a running loop.

A `Pipeline` is fed a client's bytes in any pieces; what the proxy writes upstream is read by a small origin, whose answers come back in any
pieces too. The outcome is what the client and the origin understood, so that two ways of cutting the same bytes can be compared.
"""

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.balance.endpoint import Endpoint
from mesh.routing.table import Forward, Route, RouteTable, VirtualHost, WeightedCluster
from sidecar.config import Cluster, FilterChain, HttpFilter, Listener, Snapshot
from sidecar.downstream import DownstreamConnection
from sidecar.endpoint import EndpointState, Waiter
from sidecar.plane import Plane, chain_key
from sidecar.pool import Pool
from sidecar.upstream import UpstreamConnection

OK = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nok"
_VOLATILE = re.compile(rb"(?i)(date|x-envoy-upstream-service-time): [^\r]*\r\n")


class FakeTransport(asyncio.Transport):
    """Keeps what is written; `is_readable` says whether the protocol wants data."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.has_eof = False
        self.is_gone = False
        self.is_readable = True

    def write(self, data: Any) -> None:
        if not self.is_gone and not self.has_eof:
            self.written += bytes(data)

    def write_eof(self) -> None:
        self.has_eof = True

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_gone = True

    def abort(self) -> None:
        self.is_gone = True

    def is_closing(self) -> bool:
        return self.is_gone

    def pause_reading(self) -> None:
        assert self.is_readable
        self.is_readable = False

    def resume_reading(self) -> None:
        assert not self.is_readable
        self.is_readable = True


class FakePool(Pool):
    """Every connection is there at once."""

    def __init__(self, tasks: asyncio.TaskGroup, now: Callable[[], float]) -> None:
        super().__init__(tasks, now)
        self.made: list[UpstreamConnection] = []

    def wait(self, host: EndpointState, exchange: Waiter) -> bool:
        connection = UpstreamConnection(self, host)
        host.open += 1
        host.cluster.connections += 1
        connection.connection_made(FakeTransport())
        self.made.append(connection)
        exchange.on_connection(connection)
        return True


@dataclass
class Outcome:
    """What both ends understood."""

    to_client: bytes = b""
    """Without headers that hold the time, and without 100 Continue."""
    is_over: bool = False
    """The client's connection has ended, or is about to."""
    requests: list[bytes] = field(default_factory=list)
    """Complete requests: head, payload and trailers, each chunked body as one chunk."""


class Pipeline:
    """One client connection of a proxy with one endpoint."""

    def __init__(self, answers: Sequence[bytes], http: HttpFilter, cut: Callable[[bytes], list[bytes]]) -> None:
        self._loop = asyncio.new_event_loop()
        tasks = asyncio.TaskGroup()
        self._plane = plane = Plane(self._loop, tasks)
        plane.pool = self.pool = FakePool(tasks, lambda: 0.0)
        plane.rng.seed(1)
        plane.apply(_snapshot(http))
        self.client = FakeTransport()
        self.connection = DownstreamConnection(plane, plane.site("in", chain_key("", 0)))
        self.connection.connection_made(self.client)
        self._answers = list(answers)
        self._cut = cut
        self._read: dict[UpstreamConnection, int] = {}
        self.outcome = Outcome()

    def feed(self, piece: bytes) -> None:
        """Some bytes of the client, and all that follows from them."""
        self._run_origin()
        if self.client.is_gone or not self.client.is_readable:
            return
        self.connection.data_received(piece)
        self._run_origin()

    def finish(self) -> Outcome:
        """What came of it; everything is closed."""
        outcome = self.outcome
        outcome.to_client = without_continue(_VOLATILE.sub(b"", self.client.written))
        outcome.is_over = self.client.is_gone or self.client.has_eof
        self.client.is_gone = True
        self.connection.connection_lost(None)
        for state in self._plane.clusters.values():
            assert state.active == 0, "a request is still counted as being under way"
        for upstream in self.pool.made:
            if not upstream.is_closed:
                upstream.connection_lost(None)
        assert all(state.connections == 0 for state in self._plane.clusters.values())
        return outcome

    def close(self) -> None:
        self._plane.close()
        self._loop.close()

    def _run_origin(self) -> None:
        progress = True
        while progress:
            progress = any(self._serve(upstream) for upstream in list(self.pool.made))

    def _serve(self, upstream: UpstreamConnection) -> bool:
        transport = upstream.transport
        assert isinstance(transport, FakeTransport)
        if upstream.is_closed:
            return False
        if transport.is_gone:
            upstream.connection_lost(None)
            return True
        at = self._read.get(upstream, 0)
        taken = take_request(transport.written[at:])
        if taken is None or not transport.is_readable:
            return False
        request, size = taken
        self._read[upstream] = at + size
        self.outcome.requests.append(request)
        answer = self._answers.pop(0) if self._answers else OK
        for piece in self._cut(answer):
            if not transport.is_gone:
                upstream.data_received(piece)
        if not transport.is_gone and b"connection: close" in answer.lower():
            upstream.connection_lost(None)
        return True


def _snapshot(http: HttpFilter) -> Snapshot:
    route = Route(name="r", action=Forward(clusters=(WeightedCluster(name="c"),)))
    table = RouteTable(name="t", virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=(route,)),))
    return Snapshot(
        listeners=(Listener(name="in", address="127.0.0.1", port=0, chains=(FilterChain(filter=http),)),),
        route_tables={"t": table},
        clusters={"c": Cluster(name="c", endpoints=(Endpoint(address="127.0.0.1", port=9),))},
    )


def take_request(data: bytes) -> tuple[bytes, int] | None:
    """The first complete request of `data`, its chunks made one, and its size; None when it is not complete.

    Written for bytes of our own proxy, so what it doesn't know is a failure of the test.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = data[:end]
    fields = dict(line.lower().split(b":", 1) for line in head[:-4].split(b"\r\n")[1:])
    if b"transfer-encoding" in fields:
        assert fields[b"transfer-encoding"].strip() == b"chunked"
        assert b"content-length" not in fields
        return _take_chunks(data, head)
    size = end + int(fields.get(b"content-length", b"0"))
    return (data[:size], size) if len(data) >= size else None


def _take_chunks(data: bytes, head: bytes) -> tuple[bytes, int] | None:
    at, payload = len(head), b""
    while (line_end := data.find(b"\r\n", at)) >= 0:
        length = int(data[at:line_end], 16)
        at = line_end + 2
        if not length:
            end = data.find(b"\r\n\r\n", at - 2) + 4
            return (head + payload + data[at:end], end) if end >= 4 else None
        if len(data) < at + length + 2:
            return None
        assert data[at + length : at + length + 2] == b"\r\n"
        payload += data[at : at + length]
        at += length + 2
    return None


def without_continue(data: bytes) -> bytes:
    """Whether 100 Continue is said depends on what has come already."""
    return data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


def run(
    pieces: Sequence[bytes], answers: Sequence[bytes], *, http: HttpFilter, cut: Callable[[bytes], list[bytes]]
) -> Outcome:
    """The outcome for a client's bytes in these pieces."""
    pipeline = Pipeline(answers, http, cut)
    try:
        for piece in pieces:
            pipeline.feed(piece)
        return pipeline.finish()
    finally:
        pipeline.close()


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def at_random(seed: int) -> Callable[[bytes], list[bytes]]:
    """Cuts in pieces of 1 to 40 bytes."""
    rng = random.Random(seed)

    def cut(data: bytes) -> list[bytes]:
        pieces, at = [], 0
        while at < len(data):
            size = rng.randint(1, 40)
            pieces.append(data[at : at + size])
            at += size
        return pieces

    return cut
