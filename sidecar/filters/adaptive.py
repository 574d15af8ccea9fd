"""Adaptive concurrency: beyond the limit that the app's latency allows, requests are refused at once. Source: Envoy's filter."""

from typing import TYPE_CHECKING

from mesh.resilience.adaptive import AdaptiveLimit
from sidecar import flags as flag
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class AdaptiveFilter(QuietFilter):
    """One limit, shared by all routes of a listener. Its note: that the request was let in."""

    __slots__ = ("_limit", "_status")

    def __init__(self, limit: AdaptiveLimit, exceeded_status: int) -> None:
        self._limit = limit
        self._status = exceeded_status

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        limit = self._limit
        if limit.try_begin(now):
            exchange.note(self, True)
            return True
        exchange.plane.stats.filters.add(FilterCount.ADAPTIVE_BLOCKED, exchange.runtime.filter.stat_prefix)
        why = f"reached concurrency limit: {limit.active} requests in flight, {limit.limit} allowed by latency"
        exchange.code = "reached_concurrency_limit"  # Envoy has no flag for it
        exchange.reply_with(self._status, flag.NONE, why)
        return False

    def on_end(self, exchange: "Exchange", now: float) -> None:
        if not exchange.noted(self):
            return
        # A tunnel lasts as long as the client likes; that says nothing about the app's latency.
        if exchange.has_responded and not exchange.is_tunnel:
            self._limit.finish(exchange.started, now)
        else:
            self._limit.give_up()
