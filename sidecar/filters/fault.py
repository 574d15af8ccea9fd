"""Faults on purpose: hold a request, answer it with an error, or both. Source: Envoy fault filter; flags DI and FI."""

from typing import TYPE_CHECKING

from mesh.resilience.fault import FaultDecision, decide_fault
from mesh.routing.conditions import compile_headers
from mesh.routing.fault import FaultRule
from sidecar import flags as flag
from sidecar.filters.counts import FilterCount
from sidecar.filters.protocol import QuietFilter
from sidecar.filters.site_state import SiteState

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class FaultFilter(QuietFilter):
    """One rule. Its note: that the request counts as a fault under way."""

    __slots__ = ("_rule", "_state", "_tests")

    def __init__(self, rule: FaultRule, state: SiteState) -> None:
        self._rule = rule
        self._state = state
        self._tests = compile_headers(rule.headers, "fault")

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        rule = self._rule
        if rule.upstream_cluster and rule.upstream_cluster != exchange.branch.name:
            return True
        if not all(test(exchange.template.head) for test in self._tests):
            return True
        draw = exchange.runtime.draw
        decision = decide_fault(rule.policy, delay_draw=draw(), abort_draw=draw())
        if not decision:
            return True
        limit = rule.policy.max_active
        if limit is not None and self._state.faults_active >= limit:
            self._count(exchange, FilterCount.FAULT_OVERFLOW)
            return True
        self._state.faults_active += 1
        exchange.note(self, True)
        if decision.delay_s > 0:
            self._delay(exchange, decision)
        else:
            self._abort(exchange, decision.abort_status)
        return False

    def _count(self, exchange: "Exchange", count: FilterCount) -> None:
        exchange.plane.stats.filters.add(count, exchange.runtime.filter.stat_prefix)

    def _delay(self, exchange: "Exchange", decision: FaultDecision) -> None:
        self._count(exchange, FilterCount.FAULT_DELAYS)
        exchange.flags = flag.join(exchange.flags, flag.DELAY_INJECTED)
        exchange.hold(decision.delay_s, lambda: self._on_delayed(exchange, decision))

    def _on_delayed(self, exchange: "Exchange", decision: FaultDecision) -> None:
        if decision.abort_status:
            self._abort(exchange, decision.abort_status)
        else:
            exchange.go_on()

    def _abort(self, exchange: "Exchange", status: int) -> None:
        self._count(exchange, FilterCount.FAULT_ABORTS)
        flags, exchange.flags = flag.join(exchange.flags, flag.FAULT_INJECTED), flag.NONE
        cause = exchange.branch.provenance
        exchange.reply_with(status, flags, f"fault filter abort{f' by {cause}' if cause is not None else ''}")

    def on_end(self, exchange: "Exchange", now: float) -> None:
        if exchange.noted(self):
            self._state.faults_active -= 1
