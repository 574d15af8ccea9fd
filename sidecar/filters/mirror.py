"""Copies of requests for another cluster. The client waits for none of them. Source: Envoy request_mirror_policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.routing.mirror import Mirror
from sidecar.cluster import ClusterState
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter
from sidecar.shadow import ShadowConfig, send_shadow

if TYPE_CHECKING:
    from sidecar.exchange import Exchange

MAX_MIRRORED_BYTES = 65536
"""Of a request's body; a request with a larger one is not copied. Source: Envoy's buffer limit for shadowed requests."""
DEFAULT_TIMEOUT_S = 60.0
"""For copies of requests whose route has no timeout. DEVIATION: Envoy lets them wait for ever."""


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """A mirror with its cluster looked up; None: the snapshot lacks it, and nothing is copied."""

    mirror: Mirror
    cluster: ClusterState | None


class MirrorFilter(QuietFilter):
    """All mirrors of a route. Asked last: only what really goes to an upstream is copied."""

    __slots__ = ("_targets", "_timeout_s")

    def __init__(self, targets: Sequence[MirrorTarget], timeout_s: float) -> None:
        self._targets = tuple(targets)
        self._timeout_s = timeout_s

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        if exchange.template.upgrade:
            return True  # what follows is not a request
        draw = exchange.runtime.draw
        chosen = [one for one in self._targets if one.mirror.share >= 1.0 or draw() < one.mirror.share]
        if chosen:
            exchange.copies = Copies(exchange, chosen, self._timeout_s)
        return True


class Copies:
    """The copies to be made of one request: they are sent when its head has gone upstream and its body is complete."""

    __slots__ = ("_body", "_chosen", "_exchange", "_head", "_size", "_timeout_s")

    def __init__(self, exchange: "Exchange", chosen: Sequence[MirrorTarget], timeout_s: float) -> None:
        self._exchange = exchange
        self._chosen = tuple(chosen)
        self._timeout_s = timeout_s
        self._head = b""
        self._body = list(exchange.replay)
        self._size = exchange.replay_bytes

    def on_head(self, wire: bytes) -> None:
        """The head of the first attempt, as it was sent."""
        if not self._head:
            self._head = wire
            self._send_when_complete()

    def on_body(self, wire: bytes) -> None:
        """A piece of the body, framed as for the upstream."""
        self._size += len(wire)
        if self._size <= MAX_MIRRORED_BYTES:
            self._body.append(wire)
        else:
            self._drop()

    def on_request_end(self) -> None:
        """The client has sent all."""
        self._send_when_complete()

    def _drop(self) -> None:
        for one in self._chosen:
            self._exchange.plane.stats.filters.add(FilterCount.MIRROR_DROPPED, one.mirror.cluster)
        self._chosen, self._body = (), []

    def _send_when_complete(self) -> None:
        if not self._head or not self._exchange.request_done:
            return
        for one in self._chosen:
            config = ShadowConfig(
                mirror=one.mirror,
                head=self._head,
                body=b"".join(self._body),
                method=self._exchange.method,
                timeout_s=self._timeout_s,
            )
            send_shadow(self._exchange.plane, one.cluster, config)
        self._chosen, self._body = (), []
