"""Peak EWMA: who is likely to answer soonest. Time comes in as arguments, chance as a function.

Source: finagle's and Linkerd's balancers. DEVIATION from them: a failure counts as a slow answer, so a host that fails fast gets less, not
more. Real Envoy has no such policy to choose by `lb_policy`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from mesh.balance.config import EwmaConfig
from mesh.balance.pick import Draw, WeightedDraw


class Latency:
    """What one host's answers take. It follows a slower answer at once and forgets it slowly."""

    __slots__ = ("_at", "_decay_s", "_estimate_s", "config")

    def __init__(self, config: EwmaConfig, now: float) -> None:
        self.config = config
        self._decay_s = config.decay_s
        self._estimate_s = config.default_rtt_s
        self._at = now

    def observe(self, rtt_s: float, now: float) -> None:
        """An answer came after `rtt_s`."""
        if rtt_s >= self._estimate_s:
            self._estimate_s = rtt_s
        else:
            kept = math.exp((self._at - now) / self._decay_s)
            self._estimate_s = self._estimate_s * kept + rtt_s * (1.0 - kept)
        self._at = now

    def fail(self, now: float) -> None:
        """No answer, or a server error."""
        self.observe(self.config.penalty_s, now)

    def estimate_s(self, now: float) -> float:
        """What is expected now. It falls while nothing is heard, so that a slow host gets another chance."""
        return self._estimate_s * math.exp((self._at - now) / self._decay_s)


class TimedHost(Protocol):
    """What this picker needs to know."""

    @property
    def active(self) -> int: ...

    @property
    def weight(self) -> float: ...

    @property
    def latency(self) -> Latency | None: ...


H = TypeVar("H", bound=TimedHost)


class PeakEwma(Generic[H]):
    """Of two hosts drawn by weight, the one with the lower expected latency x (requests in flight / relative weight + 1).

    Idle hosts that answer equally fast thus share by their weights, and so do busy ones.
    """

    __slots__ = ("_clock", "_draw_one", "_hosts", "_mean_weight")

    def __init__(self, hosts: Sequence[H], clock: Callable[[], float]) -> None:
        self._hosts = tuple(hosts)
        self._clock = clock
        self._draw_one = WeightedDraw(self._hosts)
        self._mean_weight = sum(host.weight for host in hosts) / len(hosts) if hosts else 1.0

    def pick(self, draw: Draw) -> H | None:
        hosts = self._hosts
        count = len(hosts)
        if count < 2:
            return hosts[0] if count else None
        draw_one = self._draw_one
        if draw_one.is_uniform:
            first = int(draw() * count)
            second = int(draw() * (count - 1))
            one, other = hosts[first], hosts[second + 1 if second >= first else second]
        else:
            one, other = draw_one.draw(draw), draw_one.draw(draw)
        now = self._clock()
        return other if self._cost(other, now) < self._cost(one, now) else one

    def _cost(self, host: H, now: float) -> float:
        latency = host.latency
        estimate_s = latency.estimate_s(now) if latency is not None else 0.0
        return estimate_s * (host.active * self._mean_weight / host.weight + 1.0)
