"""The ADS client: one delta stream to the control plane, kept up for ever.

It asks for all listeners and clusters meant for this proxy, and by name for the routes and endpoints that those refer to. What the
receiver has taken over stays in force while the stream is down. A response is acknowledged when what it brought is in force,
so an ACK means something to whoever waits for it (drains, `apply --wait`).
"""

import asyncio
import enum
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from mesh.backoff import Backoff
from mesh.errors import MeshError
from mesh.net.tasks import spawn
from mesh.xds.errors import XdsStreamError
from mesh.xds.subscription import Request, Subscription
from mesh.xds.type_urls import CLUSTER, IN_ORDER, LISTENER, SHORT_NAMES

logger: Final = logging.getLogger(__name__)

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
)
_BACKOFF: Final = Backoff(base_s=0.1, cap_s=5.0, factor=2.0, jitter=0.5)
_MAX_QUEUED_REQUESTS: Final = 10_000
_STABLE_AFTER_S: Final = 10.0
"""A stream that lasted this long was a good one: the next failure starts the back-off anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdsConfig:
    """Where the control plane is and who we are."""

    target: str
    """What gRPC dials: host:port, or a unix socket that leads there."""
    server_name: str = ""
    """The name or IP address that the server's certificate must have, when `target` is not it."""
    ca_file: Path | None
    """PEM; the server's certificate must chain to it. None: no TLS (tests on loopback)."""
    token_file: Path | None
    """Service account token, read anew for each stream; None: none is sent."""
    node: Any
    """envoy.config.core.v3.Node."""
    backoff: Backoff = _BACKOFF
    """Waits between streams."""
    missing_timeout_s: float = 10.0
    """Go on without endpoints or routes that were asked for but have not come by then. Seconds, > 0."""


class Outcome(enum.Enum):
    """What came of an attempt to put the staged resources in force."""

    APPLIED = "applied"
    INCOMPLETE = "incomplete"
    """Something they refer to has not arrived."""


class Receiver(Protocol):
    """Takes resources over. Nothing it raises ends the stream: MeshError is a NACK's reason."""

    def stage(self, type_url: str, added: Sequence[tuple[str, Any]], removed: Sequence[str]) -> Mapping[str, str]:
        """Decode and keep (name, google.protobuf.Any) pairs. Returns what was rejected: name -> why."""
        ...

    def wanted(self) -> Mapping[str, frozenset[str]]:
        """The names to ask for, by type; only types that are asked for by name."""
        ...

    async def apply(self, *, despite_missing: bool = False) -> Outcome:
        """Put what is staged in force. Raises MeshError when it does not work; the last good configuration then stays."""
        ...


@dataclass(slots=True)
class AdsStatus:
    """How the stream is, for the admin interface."""

    is_connected: bool = False
    streams: int = 0
    """Streams begun so far."""
    acks: int = 0
    nacks: int = 0
    last_error: str = ""
    last_nack: str = ""
    held: dict[str, int] = field(default_factory=dict)
    """Resources held, by short type name."""

    def counters(self) -> dict[str, int]:
        """What only grows, for metrics."""
        return {"streams": self.streams, "acks": self.acks, "nacks": self.nacks}

    def shown(self) -> dict[str, Any]:
        """Everything, for the admin interface."""
        return {
            "is_connected": self.is_connected,
            **self.counters(),
            "last_error": self.last_error,
            "last_nack": self.last_nack,
            "held": dict(self.held),
        }


class AdsClient:
    """Runs the stream. `run` is owned by a TaskGroup and ends only by cancellation."""

    def __init__(self, config: AdsConfig, receiver: Receiver, rng: random.Random) -> None:
        self._config = config
        self._receiver = receiver
        self._rng = rng
        self._types = {
            type_url: Subscription(type_url, is_wildcard=type_url in (LISTENER, CLUSTER)) for type_url in IN_ORDER
        }
        self._requests: asyncio.Queue[Request] = asyncio.Queue(_MAX_QUEUED_REQUESTS)
        self._missing_timer: asyncio.TimerHandle | None = None
        self._overdue = asyncio.Event()
        self.status = AdsStatus()

    async def run(self) -> None:
        """Keep a stream up."""
        async with asyncio.TaskGroup() as group:
            spawn(group, self._watch_overdue(), name="ads-overdue")
            await self._keep_streaming()

    async def _keep_streaming(self) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self._stream()
                self.status.last_error = "the control plane ended the stream"
            except XdsStreamError as exc:
                self.status.last_error = str(exc)
            finally:
                self.status.is_connected = False
                self._stop_missing_timer()
            attempt = 1 if loop.time() - begun > _STABLE_AFTER_S else attempt + 1
            delay_s = self._config.backoff.delay_s(attempt, self._rng)
            logger.warning(
                "no stream to the control plane; the last configuration stays in force",
                extra={
                    "target": self._config.server_name or self._config.target,
                    "error": self.status.last_error,
                    "retry_in_s": round(delay_s, 2),
                },
            )
            await asyncio.sleep(delay_s)

    async def _stream(self) -> None:
        """One stream, from connecting to its end. Raises XdsStreamError."""
        async with self._channel() as channel:
            method = channel.stream_stream(
                _METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )
            self._begin()
            call = method(self._outgoing(), metadata=self._metadata())
            try:
                async for response in call:
                    await self._on_response(response)
            except grpc.aio.AioRpcError as exc:
                raise XdsStreamError(f"{exc.code().name}: {exc.details()}") from exc

    def _channel(self) -> grpc.aio.Channel:
        if self._config.ca_file is None:
            return grpc.aio.insecure_channel(self._config.target, options=_CHANNEL_OPTIONS)
        credentials = grpc.ssl_channel_credentials(_read(self._config.ca_file))
        name = self._config.server_name
        named = (("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)) if name else ()
        return grpc.aio.secure_channel(self._config.target, credentials, options=(*_CHANNEL_OPTIONS, *named))

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._config.token_file is None:
            return ()
        return (("authorization", f"Bearer {_read(self._config.token_file).decode('ascii', 'replace').strip()}"),)

    def _begin(self) -> None:
        self.status.streams += 1
        self._requests = asyncio.Queue(_MAX_QUEUED_REQUESTS)
        for type_url in IN_ORDER:
            self._send(self._types[type_url].start())

    def _send(self, request: Request | None) -> None:
        if request is None:
            return
        try:
            self._requests.put_nowait(request)
        except asyncio.QueueFull as exc:
            raise XdsStreamError("the control plane does not read our requests") from exc

    async def _outgoing(self) -> AsyncIterator[Any]:
        is_first = True
        requests = self._requests
        while True:
            request = await requests.get()
            yield _encode(request, self._config.node if is_first else None)
            is_first = False

    async def _on_response(self, response: Any) -> None:
        self.status.is_connected = True
        subscription = self._types.get(response.type_url)
        if subscription is None:
            logger.warning("the control plane sent a type nobody asked for", extra={"type": response.type_url})
            return
        subscription.received(response.nonce)
        added = [(one.name, one.resource) for one in response.resources if one.HasField("resource")]
        rejected = self._receiver.stage(response.type_url, added, response.removed_resources)
        for one in response.resources:
            if one.name not in rejected:
                subscription.hold(one.name, one.version)
        for name in response.removed_resources:
            subscription.drop(name)
        self._ask()
        if rejected:
            self._answer(subscription, response.nonce, "; ".join(rejected.values()))
        await self._apply()

    def _ask(self) -> None:
        """Ask for what is referred to now."""
        for type_url, names in self._receiver.wanted().items():
            self._send(self._types[type_url].want(names))

    async def _apply(self, *, despite_missing: bool = False) -> None:
        # MeshError is caught by its root: whatever the receiver can't use is the control plane's fault, and told to it.
        try:
            outcome = await self._receiver.apply(despite_missing=despite_missing)
        except MeshError as exc:
            self._stop_missing_timer()
            for subscription in self._types.values():
                subscription.forget_versions()
            self._answer_all(str(exc))
            self._ask()
            return
        if outcome is Outcome.APPLIED:
            self._stop_missing_timer()
            self._answer_all()
        elif self._missing_timer is None:
            loop = asyncio.get_running_loop()
            self._missing_timer = loop.call_later(self._config.missing_timeout_s, self._overdue.set)

    async def _watch_overdue(self) -> None:
        while True:
            await self._overdue.wait()
            self._overdue.clear()
            logger.warning("the control plane has not sent all that its resources refer to; going on without")
            try:
                await self._apply(despite_missing=True)
            except XdsStreamError as exc:
                logger.warning("answers to the control plane were lost", extra={"error": str(exc)})

    def _stop_missing_timer(self) -> None:
        self._overdue.clear()
        if self._missing_timer is not None:
            self._missing_timer.cancel()
            self._missing_timer = None

    def _answer_all(self, error: str = "") -> None:
        for subscription in self._types.values():
            for nonce in subscription.unanswered:
                self._answer(subscription, nonce, error)
        self.status.held = {SHORT_NAMES[url]: len(one.versions) for url, one in self._types.items()}

    def _answer(self, subscription: Subscription, nonce: str, error: str) -> None:
        request = subscription.answer(nonce, error)
        if request is None:
            return
        if error:
            self.status.nacks += 1
            self.status.last_nack = f"{SHORT_NAMES[subscription.type_url]}: {error}"
            logger.error(
                "configuration rejected; the last good one stays in force",
                extra={"type": SHORT_NAMES[subscription.type_url], "reason": error},
            )
        else:
            self.status.acks += 1
        self._send(request)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise XdsStreamError(f"{path} can't be read: {exc.strerror}") from exc


def _encode(request: Request, node: Any) -> Any:
    message = discovery_pb2.DeltaDiscoveryRequest(
        node=node,
        type_url=request.type_url,
        resource_names_subscribe=request.subscribe,
        resource_names_unsubscribe=request.unsubscribe,
        initial_resource_versions=dict(request.initial_versions),
        response_nonce=request.nonce,
    )
    if request.error:
        message.error_detail.code = 3  # INVALID_ARGUMENT
        message.error_detail.message = request.error
    return message


def make_node(node_id: str, cluster: str, metadata: Mapping[str, Any]) -> Any:
    """An envoy.config.core.v3.Node that says who we are (docs/contracts.md, "Node")."""
    node = base_pb2.Node(id=node_id, cluster=cluster, user_agent_name="meshwork")
    node.metadata.update(dict(metadata))
    return node
