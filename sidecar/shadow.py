"""One copy of a request on its way: it owns an upstream connection like an exchange, and throws the response away."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, ResponseHead
from mesh.resilience.outlier import FailureKind
from mesh.resilience.retry import IDEMPOTENT_METHODS
from mesh.routing.mirror import Mirror
from mesh.routing.rewrite import mutate_lines, split_port
from sidecar.cluster import ClusterState
from sidecar.endpoint import EndpointState
from sidecar.filters.counts import FilterCount

if TYPE_CHECKING:
    from sidecar.exchange import Exchange
    from sidecar.plane import Plane
    from sidecar.upstream import UpstreamConnection

_SUFFIX = b"-shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowConfig:
    """What is sent."""

    mirror: Mirror
    head: bytes
    """The original's head as it went upstream, with its empty line."""
    body: bytes
    method: bytes
    timeout_s: float


def send_shadow(plane: "Plane", cluster: ClusterState | None, config: ShadowConfig) -> None:
    """Send a copy, unless the cluster's limits or the lack of an endpoint forbid it. Never raises, never waits."""
    name = config.mirror.cluster
    host = None
    if cluster is not None and cluster.picker is not None and cluster.active < cluster.max_requests:
        host = cluster.pick_for()
    if host is None or not Shadow(plane, host, config).start():
        plane.stats.filters.add(FilterCount.MIRROR_DROPPED, name)


def shadow_head(head: bytes, mirror: Mirror) -> bytes:
    """The original's head for the other cluster: "-shadow" after the Host's name, before its port."""
    first, *lines = head[:-4].split(b"\r\n")
    for at, line in enumerate(lines):
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            lines[at] = b"host: " + _host(value.strip(), mirror)
    return b"\r\n".join([first, *mutate_lines(lines, (mirror.request_headers,))]) + b"\r\n\r\n"


def _host(authority: bytes, mirror: Mirror) -> bytes:
    if mirror.host_rewrite is not None:
        return mirror.host_rewrite.encode()
    if mirror.keeps_host:
        return authority
    host, port = split_port(authority)
    return host + _SUFFIX + (b":" + port if port else b"")


class Shadow:
    """Owner of one upstream connection for one copy. Has what a connection and the pool ask of their owner."""

    __slots__ = (
        "_config",
        "_host",
        "_plane",
        "_timer",
        "_upstream",
        "is_plain",
        "method",
        "request_done",
        "stale_retries",
        "template",
        "upstream_keeps_alive",
    )

    def __init__(self, plane: "Plane", host: EndpointState, config: ShadowConfig) -> None:
        self._plane = plane
        self._host = host
        self._config = config
        self._upstream: UpstreamConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_plain = False
        self.method = config.method
        self.template = self
        self.upstream_keeps_alive = False
        self.request_done = True
        """It is only sent when it is whole."""
        self.stale_retries = 0
        """1: a kept connection turned out to be closed, so it waits for a new one."""

    @property
    def upgrade(self) -> bytes:
        """A copy never asks to switch protocols."""
        return b""

    def start(self) -> bool:
        """False: the cluster has no place for another request that waits."""
        host = self._host
        host.active += 1
        host.cluster.active += 1
        if host.idle:
            self._timer = self._plane.loop.call_later(self._config.timeout_s, self._on_timeout)
            self.on_connection(host.idle.pop())
            return True
        if not self._plane.pool.wait(host, self):
            self._release()
            return False
        self._timer = self._plane.loop.call_later(self._config.timeout_s, self._on_timeout)
        return True

    def _count(self, count: FilterCount) -> None:
        self._plane.stats.filters.add(count, self._config.mirror.cluster)

    def _release(self) -> None:
        self._host.active -= 1
        self._host.cluster.active -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self) -> None:
        self._host.cluster.fail(self._host, FailureKind.LOCAL_ORIGIN, time.monotonic())
        self._count(FilterCount.MIRROR_FAILED)
        self._release()

    def _on_timeout(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._plane.pool.discard(upstream)
        else:
            self._plane.pool.stop_waiting(self._host, self)
        self._fail()

    # -- called by the pool

    def on_connection(self, upstream: "UpstreamConnection") -> None:
        self._upstream = upstream
        upstream.owner = cast("Exchange", self)
        upstream.requests += 1
        config = self._config
        upstream.transport.write(shadow_head(config.head, config.mirror) + config.body)
        self._count(FilterCount.MIRROR_SENT)

    def on_connect_failed(self, why: str) -> None:
        self._fail()

    # -- called by the connection

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx is of no interest."""

    def on_response(
        self, upstream: "UpstreamConnection", head: ResponseHead, kind: BodyKind, *, is_whole: bool
    ) -> bool:
        self.upstream_keeps_alive = head.keep_alive
        host = self._host
        if head.status >= 500:
            gateway = head.status in (502, 503, 504)
            failure = FailureKind.GATEWAY_ERROR if gateway else FailureKind.SERVER_ERROR
            host.cluster.fail(host, failure, time.monotonic())
        elif host.health.has_failures:
            host.health.succeed()
        return True

    def on_response_body(self, pieces: list[bytes]) -> None:
        """Thrown away."""

    def flush_response(self) -> None:
        """Nothing is collected."""

    def on_response_end(self, upstream: "UpstreamConnection", trailers: list[bytes], *, keeps: bool) -> None:
        self._upstream = None
        upstream.owner = None
        self._count(FilterCount.MIRROR_ANSWERED)
        self._release()
        if keeps and not upstream.is_closed:
            self._plane.pool.keep(upstream)
        else:
            self._plane.pool.discard(upstream)

    def on_upstream_lost(self, upstream: "UpstreamConnection") -> None:
        upstream.owner = None
        self._upstream = None
        was_kept = upstream.requests > 1 and not upstream.has_partial_head
        if was_kept and not self.stale_retries and self.method in IDEMPOTENT_METHODS and not self._host.is_removed:
            # It was closed while idle, most likely: that is nobody's failure.
            self.stale_retries = 1
            if self._plane.pool.wait(self._host, self):
                return
        self._fail()

    def on_upstream_malformed(self, upstream: "UpstreamConnection", error: HttpSyntaxError) -> None:
        self._upstream = None
        self._plane.pool.discard(upstream)
        self._fail()

    def on_upstream_full(self) -> None:
        """All has been written at once; it is bounded by what is copied of a body."""

    def on_upstream_ready(self) -> None:
        """As above."""
