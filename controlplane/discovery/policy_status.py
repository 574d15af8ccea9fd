"""What each policy's status should say: accepted or not, and whether every proxy concerned runs by it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.proxies import ConnectedProxy, ProxyRegistry
from controlplane.discovery.snapshot import Snapshot
from controlplane.discovery.status_text import NOT_ACCEPTED, CurrentStatus, Finding, render_status
from controlplane.discovery.verdicts import PolicyId, Verdict
from mesh.api.resources import Json
from mesh.clock import Clock

_NAMES_SHOWN = 5


@dataclass(slots=True)
class _Tracked:
    verdict: Verdict
    serial: int
    """The first snapshot with this verdict."""
    since: float
    refused: dict[str, str] = field(default_factory=dict)
    """proxy -> why."""


class PolicyStatusTracker:
    """Follows every policy from its first snapshot to the last proxy's answer. An observer of the publisher."""

    def __init__(
        self,
        proxies: ProxyRegistry,
        verdicts: Callable[[], Iterable[tuple[PolicyId, Verdict]]],
        on_change: Callable[[PolicyId, float], None],
        clock: Clock,
        *,
        delay_s: float,
        absent: Callable[[], tuple[ObjectKey, ...]] = lambda: (),
    ) -> None:
        """`on_change(policy, in_s)` is called when `desired` may have something new to say, now or in `in_s` seconds.

        `absent` names the pods whose sidecars are at work but not connected (discovery has just started): they count as behind.
        """
        self._absent = absent
        self._proxies = proxies
        self._verdicts = verdicts
        self._on_change = on_change
        self._clock = clock
        self._delay_s = delay_s
        self._tracked: dict[PolicyId, _Tracked] = {}
        self._waiting: set[PolicyId] = set()

    def on_published(self, snapshot: Snapshot) -> None:
        current = dict(self._verdicts())
        for gone in self._tracked.keys() - current.keys():
            del self._tracked[gone]
            self._waiting.discard(gone)
        for policy, verdict in current.items():
            known = self._tracked.get(policy)
            if known is None or known.verdict != verdict:
                self._tracked[policy] = _Tracked(verdict, snapshot.serial, self._clock.now())
                self._waiting.add(policy)
                self._on_change(policy, self._delay_s)
        self.on_progress()

    def on_progress(self) -> None:
        connected = {proxy.name for proxy in self._proxies if proxy.state.errors}
        for policy, tracked in self._tracked.items():
            for proxy in [name for name in tracked.refused if name not in connected]:
                del tracked.refused[proxy]
                self._waiting.add(policy)
        for policy in tuple(self._waiting):
            tracked = self._tracked[policy]
            if not tracked.verdict.is_accepted or not self._behind(tracked.serial):
                self._waiting.discard(policy)
                self._on_change(policy, 0.0)

    def on_refused(self, proxy: ConnectedProxy, since: int, reason: str) -> None:
        for policy, tracked in self._tracked.items():
            if tracked.verdict.is_accepted and since < tracked.serial <= proxy.shown_serial:
                tracked.refused[proxy.name] = reason
                self._on_change(policy, 0.0)

    def desired(self, policy: PolicyId, current: CurrentStatus, now: str) -> Json | None:
        """The status to write, or None when there is nothing to say yet. `now` is an RFC 3339 time for transitions."""
        tracked = self._tracked.get(policy)
        if tracked is None:
            return None
        programmed = self._programmed(tracked)
        if programmed is None:
            return None
        return render_status(tracked.verdict, programmed, current, now)

    def _programmed(self, tracked: _Tracked) -> Finding | None:
        """(status, reason, message), or None while it is too early to tell."""
        if not tracked.verdict.is_accepted:
            return NOT_ACCEPTED
        if tracked.refused:
            proxies = "; ".join(f"{name}: {why}" for name, why in sorted(tracked.refused.items())[:_NAMES_SHOWN])
            return "False", "Refused", f"{len(tracked.refused)} proxies refused it: {proxies}"
        behind = self._behind(tracked.serial)
        if not behind:
            return "True", "Programmed", f"{len(self._proxies)} connected proxies run by it"
        if self._clock.now() - tracked.since < self._delay_s:
            return None
        names = ", ".join(behind[:_NAMES_SHOWN])
        total = max(len(self._proxies), len(behind))
        return "False", "Pending", f"waiting for {len(behind)} of {total} proxies: {names}"

    def _behind(self, serial: int) -> list[str]:
        """The proxies that do not run by this snapshot yet; those that are not even connected are looked for last."""
        behind = self._proxies.behind(serial)
        if behind:
            return sorted(proxy.name for proxy in behind)
        return sorted(f"{name}.{namespace} (not connected)" for namespace, name in self._absent())
