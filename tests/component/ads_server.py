"""A small delta ADS server over TLS for the sidecar's tests: it sends what a test tells it and keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2

from mesh.identity.pki import KeyPair
from mesh.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE

ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE)


@dataclass
class AdsServer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]  # generated code has no types
    """Serves one proxy at a time."""

    token: str
    resources: dict[str, dict[str, tuple[str, any_pb2.Any]]] = field(default_factory=lambda: {one: {} for one in ORDER})
    """type -> name -> (version, resource)"""
    nodes: list[Any] = field(default_factory=list)
    initial: list[dict[str, dict[str, str]]] = field(default_factory=list)
    """initial_resource_versions of each stream, by type."""
    asked: dict[str, set[str]] = field(default_factory=lambda: {ENDPOINT: set(), ROUTE: set()})
    acked: list[str] = field(default_factory=list)
    nacked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _out: asyncio.Queue[Any] | None = None
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    _nonce: int = 0

    async def DeltaAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        given = dict(context.invocation_metadata()).get("authorization")
        if given != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this token is not known")
        out: asyncio.Queue[Any] = asyncio.Queue()
        self._out = out
        self.initial.append({})
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(requests))
            try:
                while True:
                    yield await out.get()
            finally:
                reading.cancel()

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            if request.HasField("node"):
                self.nodes.append(request.node)
            if request.response_nonce:
                if request.HasField("error_detail"):
                    self.nacked.append((request.response_nonce, request.error_detail.message))
                else:
                    self.acked.append(request.response_nonce)
                self._answered.set()
                continue
            type_url, known = request.type_url, dict(request.initial_resource_versions)
            self.initial[-1].setdefault(type_url, known)
            if type_url in self.asked:
                self.asked[type_url] |= set(request.resource_names_subscribe)
                self.asked[type_url] -= set(request.resource_names_unsubscribe)
                names = list(request.resource_names_subscribe)
            else:
                names = list(self.resources[type_url])
            held = self.resources[type_url]
            stale = [name for name in names if name in held and known.get(name) != held[name][0]]
            removed = [name for name in names if name not in held]
            if stale or removed or not names:
                self.send(type_url, stale, removed)

    def put(self, type_url: str, name: str, message: Any, version: str) -> None:
        """Hold a resource without sending it."""
        packed = any_pb2.Any()
        packed.Pack(message)
        self.resources[type_url][name] = (version, packed)

    def send(self, type_url: str, names: list[str], removed: list[str] | None = None) -> str:
        """Send resources now; returns the nonce."""
        self._nonce += 1
        response = discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url, nonce=str(self._nonce), removed_resources=removed or []
        )
        for name in names:
            version, packed = self.resources[type_url][name]
            response.resources.add(name=name, version=version, resource=packed)
        assert self._out is not None
        self._out.put_nowait(response)
        return str(self._nonce)

    async def answered(self, nonce: str) -> str:
        """Wait for the answer to a nonce: the error of a NACK, or empty."""
        async with asyncio.timeout(5):
            while True:
                if nonce in self.acked:
                    return ""
                for rejected, message in self.nacked:
                    if rejected == nonce:
                        return message
                self._answered.clear()
                await self._answered.wait()

    async def push(self, type_url: str, name: str, message: Any, version: str) -> str:
        """Put, send, and wait for the answer."""
        self.put(type_url, name, message, version)
        return await self.answered(self.send(type_url, [name]))

    @asynccontextmanager
    async def serving(self, pair: KeyPair, port: int = 0) -> AsyncIterator[None]:
        """Listen on loopback with TLS."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)
        credentials = grpc.ssl_server_credentials([(pair.key_file.read_bytes(), pair.cert_file.read_bytes())])
        self.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)
