"""The ADS server: both variants of the protocol over gRPC with TLS."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.discovery import wire
from controlplane.discovery.authentication import TokenChecker, check_identity
from controlplane.discovery.config import DiscoveryConfig
from controlplane.discovery.errors import DiscoveryConfigError, ProxyRefusedError, TokenCheckUnavailableError
from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.proxies import ConnectedProxy, ProxyIdentity, read_identity
from controlplane.discovery.publisher import Publisher
from controlplane.discovery.resources import SHORT_NAMES
from controlplane.discovery.stream import Request, Response
from mesh.net.tasks import cancel_and_wait, run_to_end, spawn

logger = logging.getLogger(__name__)

SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_FIRST_MESSAGE_S: Final = 10.0
_OPTIONS: Final = (
    # Source: facts/control-plane.md: grpc.aio sheds calls without a word beyond 1,000 pending.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
_Read = Callable[[], AsyncIterator[Any]]


class AdsServer:
    """Serves the publisher's snapshots."""

    def __init__(
        self,
        publisher: Publisher,
        checker: TokenChecker,
        pod_exists: Callable[[ObjectKey], bool],
        config: DiscoveryConfig,
    ) -> None:
        self._publisher = publisher
        self._checker = checker
        self._pod_exists = pod_exists
        self._config = config
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """The port that is listened on, once started."""

    async def start(self) -> None:
        """Bind and serve. Raises DiscoveryConfigError when the address or the certificate is unusable."""
        config = self._config
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = f"{config.listen_address or config.cluster_address}:{config.ads_port}"
        try:
            self.port = server.add_secure_port(address, _credentials(config))
        except RuntimeError as exc:
            raise DiscoveryConfigError(f"ADS can't listen on {address}: {exc}") from exc
        self._server = server
        await run_to_end(server.start())  # grpc.aio can't stop a server whose start was cancelled

    async def stop(self) -> None:
        """End every stream and the server."""
        if self._server is not None:
            await self._server.stop(grace=0.2)

    def _handlers(self) -> Any:
        delta = grpc.stream_stream_rpc_method_handler(
            self._delta,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=_as_is,
        )
        sotw = grpc.stream_stream_rpc_method_handler(
            self._sotw,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=_as_is,
        )
        methods = {"DeltaAggregatedResources": delta, "StreamAggregatedResources": sotw}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _delta(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._serve(requests, context, wire.delta_request, wire.delta_response, is_delta=True)

    async def _sotw(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._serve(requests, context, wire.sotw_request, wire.sotw_response, is_delta=False)

    async def _serve(
        self,
        requests: AsyncIterator[Any],
        context: Any,
        read: Callable[[Any], Request],
        write: Callable[[Response], bytes],
        *,
        is_delta: bool,
    ) -> None:
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                first = await anext(requests, None)
                if first is None:
                    return
                identity = await self._admit(first, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came")
        except ProxyRefusedError as exc:
            logger.warning("proxy refused", extra={"peer": context.peer(), "why": str(exc)})
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(exc))
        except TokenCheckUnavailableError as exc:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(exc))
        if len(self._publisher.proxies) >= self._config.max_streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._config.max_streams} proxies are connected")
        proxy = self._publisher.connect(identity, is_delta=is_delta)
        logger.info("proxy connected", extra={"proxy": proxy.name, "kind": identity.kind, "delta": is_delta})
        try:
            await _Stream(self._publisher, proxy, context, write, self._config).run(read(first), requests, read)
        finally:
            self._publisher.disconnect(proxy)
            logger.info("proxy disconnected", extra={"proxy": proxy.name})

    async def _admit(self, first: Any, context: Any) -> ProxyIdentity:
        metadata = dict(context.invocation_metadata() or ())
        owner = await self._checker.check(str(metadata.get("authorization", "")))
        identity = read_identity(first.node)
        check_identity(owner, identity, self._pod_exists)
        return identity


class _Stream:
    """Reads and writes one stream. One task reads, one writes; the writer never waits for the proxy to answer."""

    def __init__(
        self,
        publisher: Publisher,
        proxy: ConnectedProxy,
        context: Any,
        write: Callable[[Response], bytes],
        config: DiscoveryConfig,
    ) -> None:
        self._publisher = publisher
        self._proxy = proxy
        self._context = context
        self._write = write
        self._config = config

    async def run(self, first: Request, requests: AsyncIterator[Any], read: Callable[[Any], Request]) -> None:
        """Until the proxy ends the stream."""
        async with asyncio.TaskGroup() as group:
            writer = spawn(group, self._send_for_ever(), name=f"ads {self._proxy.name}")
            self._take(first)
            async for message in requests:
                self._take(read(message))
            await cancel_and_wait(writer)

    def _take(self, request: Request) -> None:
        if request.error:
            logger.error(
                "proxy refused a configuration; it keeps the last good one",
                extra={
                    "proxy": self._proxy.name,
                    "type": SHORT_NAMES.get(request.type_url, request.type_url),
                    "why": request.error,
                },
            )
        if self._proxy.state.on_request(request):
            self._publisher.answered(self._proxy, refusal=request.error)
        self._proxy.wake.set()

    async def _send_for_ever(self) -> None:
        proxy = self._proxy
        while True:
            hurry = not await self._woken()
            proxy.wake.clear()
            for response in proxy.state.next_responses(hurry=hurry):
                await self._context.write(self._write(response))
            self._publisher.answered(proxy)

    async def _woken(self) -> bool:
        """False when nobody woke us for so long that what waits for other types' answers should go anyway."""
        if self._proxy.state.is_settled:
            await self._proxy.wake.wait()
            return True
        try:
            async with asyncio.timeout(self._config.settle_timeout_s):
                await self._proxy.wake.wait()
        except TimeoutError:
            return False
        return True


def _as_is(data: bytes) -> bytes:
    return data


def _credentials(config: DiscoveryConfig) -> grpc.ServerCredentials:
    try:
        key, chain = Path(config.key_file).read_bytes(), Path(config.cert_file).read_bytes()
    except OSError as exc:
        raise DiscoveryConfigError(f"{exc.filename} can't be read: {exc.strerror}") from exc
    return grpc.ssl_server_credentials([(key, chain)])
