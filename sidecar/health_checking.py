"""Active health checks at run time: who is checked, when, and what follows from it.

The checker owns its timers and tasks. A push of configuration restarts only what changed. Clusters without checks cost one test per push.
Each worker process checks by itself, as each Envoy process does.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from mesh.net.tasks import spawn
from mesh.resilience.health_check import Change, CheckState, Draw, HealthCheck, Outcome
from sidecar.cluster import ClusterState
from sidecar.endpoint import EndpointState
from sidecar.probing import Dial, Finding, Prober, Target

logger = logging.getLogger(__name__)

MAX_RUNNING = 64
"""Checks under way at once; more wait for their turn."""
IMMEDIATE_FAILURE = b"x-envoy-immediate-health-check-fail"
"""A response header by which an endpoint says that it fails its checks from now on. Source: Envoy, router filter."""


@dataclass(slots=True, eq=False)
class CheckStats:
    """Counters of one cluster; they only grow. Names are Envoy's (`cluster.NAME.health_check.*`)."""

    attempt: int = 0
    success: int = 0
    failure: int = 0
    passive_failure: int = 0
    network_failure: int = 0

    def count(self, outcome: Outcome) -> None:
        """A check has ended."""
        if outcome is Outcome.PASSED:
            self.success += 1
            return
        self.failure += 1
        self.passive_failure += outcome is Outcome.PASSIVE
        self.network_failure += outcome.is_network


class HostCheck:
    """The check of one endpoint. Belongs to the checker."""

    __slots__ = (
        "_checker",
        "cluster",
        "config",
        "detail",
        "host",
        "is_stopped",
        "prober",
        "state",
        "target",
        "task",
        "timer",
    )

    def __init__(self, checker: "HealthChecker", host: EndpointState, config: HealthCheck, target: Target) -> None:
        self._checker = checker
        self.host = host
        self.cluster = host.cluster
        self.config = config
        self.target = target
        self.prober = Prober(config, target, checker.dial)
        self.state = CheckState(config, is_failed=host.is_check_failed)
        self.detail = ""
        """How the last check ended, for people."""
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_stopped = False

    @property
    def text(self) -> str:
        """The endpoint's health as its checks see it."""
        if self.state.is_first:
            return "unchecked"
        return "failing" if self.state.is_failed else "passing"

    def on_response(self, lines: Iterable[bytes]) -> None:
        """Header lines of an ordinary response: perhaps the endpoint takes itself out."""
        if says_failing(lines):
            self._checker.on_finding(self, Finding(Outcome.PASSIVE, "a response said so"))


def says_failing(lines: Iterable[bytes]) -> bool:
    """Whether response header lines tell of an immediate failure; the value does not matter."""
    return any(line.partition(b":")[0].lower() == IMMEDIATE_FAILURE for line in lines)


class HealthChecker:
    """Checks the endpoints of every cluster that wants it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: asyncio.TaskGroup, dial: Dial, draw: Draw) -> None:
        self.dial = dial
        self.stats: dict[str, CheckStats] = {}
        """By cluster; of clusters that are gone too, so that counters don't fall."""
        self._loop = loop
        self._tasks = tasks
        self._draw = draw
        self._sessions: set[HostCheck] = set()
        self._followed: frozenset[str] = frozenset()
        self._running = 0
        self._waiting: deque[HostCheck] = deque()
        self._is_closed = False

    def follow(self, clusters: Mapping[str, ClusterState]) -> None:
        """Check the endpoints of these clusters from now on. Call it when clusters or endpoints changed."""
        checked = [state for state in clusters.values() if state.config.health_checks and not state.is_original_dst]
        if not checked and not self._sessions:
            return
        wanted: set[HostCheck] = set()
        for state in checked:
            wanted |= self._follow_cluster(state)
        for session in self._sessions - wanted:
            self._stop(session)
            if not session.host.is_removed:
                self._clear(session.host)
        self._sessions = wanted
        self._followed = frozenset(state.config.name for state in checked)

    def _follow_cluster(self, state: ClusterState) -> set[HostCheck]:
        config = state.config
        is_new = config.name not in self._followed
        self.stats.setdefault(config.name, CheckStats())
        found: set[HostCheck] = set()
        changed = False
        for host in state.hosts.values():
            if host.endpoint.is_unchecked:
                continue
            check, target = config.health_checks[0], _target_of(host)
            session = host.check
            if session is None and not is_new:
                # DEVIATION: Envoy keeps a new cluster back until every endpoint has been checked once; here its endpoints are used
                # meanwhile: sending is better than refusing. Endpoints that join later wait for their first pass, as in Envoy.
                host.is_check_failed = changed = True
                host.is_check_excluded = config.ignores_new_hosts_until_checked
            if session is None or session.config != check or session.target != target:
                if session is not None:
                    self._stop(session)
                session = host.check = HostCheck(self, host, check, target)
                self._sleep(session, check.first_delay_s(self._draw))
            found.add(session)
        if changed:
            state.rebuild()
        return found

    def _clear(self, host: EndpointState) -> None:
        """The endpoint is not checked any more, so nothing speaks against it."""
        host.check = None
        if host.is_check_failed or host.is_check_excluded:
            host.is_check_failed = host.is_check_excluded = False
            host.cluster.rebuild()

    # -- running

    def _sleep(self, session: HostCheck, delay_s: float) -> None:
        session.timer = self._loop.call_later(delay_s, self._on_due, session)

    def _on_due(self, session: HostCheck) -> None:
        session.timer = None
        self._waiting.append(session)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._waiting and self._running < MAX_RUNNING and not self._is_closed:
            session = self._waiting.popleft()
            if not session.is_stopped:
                self._running += 1
                self.stats[session.cluster.config.name].attempt += 1
                session.task = spawn(self._tasks, self._check(session), name=f"health-check {session.host.text}")
                session.task.add_done_callback(partial(self._on_done, session))

    def _on_done(self, session: HostCheck, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began."""
        session.task = None
        self._running -= 1
        if session.is_stopped:
            session.prober.close()
        if session.is_stopped or not (task.cancelled() or task.exception()):  # else everything ends
            self._start_waiting()

    async def _check(self, session: HostCheck) -> None:
        finding = await session.prober.check()
        if not session.is_stopped:
            change = self.on_finding(session, finding)
            has_traffic = session.cluster.has_connected
            self._sleep(
                session, session.config.delay_s(finding.outcome, change, has_traffic=has_traffic, draw=self._draw)
            )

    def _stop(self, session: HostCheck) -> None:
        session.is_stopped = True
        if session.timer is not None:
            session.timer.cancel()
            session.timer = None
        if session.task is not None:
            session.task.cancel()  # its connection is closed when it has ended
        else:
            session.prober.close()

    # -- what follows

    def on_finding(self, session: HostCheck, finding: Finding) -> Change:
        """A check has ended, or a response told of the endpoint's health."""
        host, outcome = session.host, finding.outcome
        was_first = session.state.is_first
        change = session.state.on_outcome(outcome)
        session.detail = finding.detail
        self.stats[session.cluster.config.name].count(outcome)
        _log(session, outcome, change, was_first=was_first)
        excluded = outcome is Outcome.PASSIVE or (host.is_check_excluded and not was_first and session.state.is_failed)
        if session.state.is_failed is not host.is_check_failed or excluded is not host.is_check_excluded:
            host.is_check_failed = session.state.is_failed
            host.is_check_excluded = excluded
            session.cluster.rebuild()
        if outcome is Outcome.PASSED and not session.state.is_failed and session.cluster.uneject(host):
            logger.info("ejected endpoint passes its health check: used again", extra=_fields(session))
        return change

    def healthy(self, state: ClusterState) -> int:
        """Endpoints of a cluster that pass."""
        return sum(1 for host in state.hosts.values() if host.check is not None and not host.is_check_failed)

    def close(self) -> None:
        """Stop every check."""
        self._is_closed = True
        for session in self._sessions:
            self._stop(session)
        self._sessions = set()
        self._waiting.clear()


def _target_of(host: EndpointState) -> Target:
    endpoint, config = host.endpoint, host.cluster.config
    probe = config.health_checks[0].probe
    return Target(
        address=endpoint.address,
        port=endpoint.check_port or endpoint.port,
        host=endpoint.check_host or getattr(probe, "host", "") or config.name,
    )


def _fields(session: HostCheck) -> dict[str, str]:
    return {"cluster": session.cluster.config.name, "endpoint": session.host.text, "reason": session.detail}


def _log(session: HostCheck, outcome: Outcome, change: Change, *, was_first: bool) -> None:
    if change is Change.CHANGED:
        if session.state.is_failed:
            logger.warning("endpoint fails its health check", extra=_fields(session))
        else:
            logger.info("endpoint passes its health check", extra=_fields(session))
    elif outcome is Outcome.PASSED:
        if session.config.logs_passes:
            logger.info("health check passed", extra=_fields(session))
    elif session.config.logs_failures or was_first:
        logger.warning("health check failed", extra=_fields(session))
