"""Several attempts of one request in flight: the exchange's own, and late ones that were set aside and may still win.

At the per-try timeout of a hedged route the attempt at hand becomes a `Rival`: its connection answers to the rival from then on, and
the exchange begins another attempt as if nothing had been. The first good response wins; it is handed to the exchange, and everybody
else is cancelled. A response that would be retried loses while another attempt is still under way. An exchange has a `Race` only while
this goes on.
"""

from typing import TYPE_CHECKING, cast

from mesh.http.errors import HttpSyntaxError
from mesh.http.response import BodyKind, ResponseHead
from mesh.resilience.hedge import Verdict, judge
from mesh.resilience.outlier import FailureKind
from sidecar import flags as flag
from sidecar.retrying import cancel_retry, drop_response, give_back, may_repeat, other_host

if TYPE_CHECKING:
    from sidecar.cluster import ClusterState
    from sidecar.endpoint import EndpointState
    from sidecar.exchange import Exchange
    from sidecar.upstream import UpstreamConnection


def hedge(exchange: "Exchange", now: float) -> bool:
    """At the per-try timeout. True: the late attempt goes on, and if possible another beside it. False: it is to be given up as usual.

    Only for whole requests that may be repeated; an attempt that has no connection yet is simply given up.
    """
    policy, host = exchange.route.retry, exchange.host
    if policy is None or host is None or exchange.upstream is None or not exchange.route.limits.hedges:
        return False
    if not (exchange.has_replay and may_repeat(exchange) and policy.wants_request(exchange.template.head.header)):
        return False
    cluster = host.cluster
    cluster.fail(host, FailureKind.LOCAL_ORIGIN, now)
    exchange.is_dirty = True
    race = exchange.race
    if race is None:
        race = exchange.race = Race(exchange)
    race.own_is_late = True
    if exchange.attempts > policy.max_retries:
        cluster.counts.retries_limited += 1
    elif not cluster.may_retry():
        cluster.counts.retries_refused += 1
    else:
        _start_beside(exchange, race, cluster, now)
    return True


def _start_beside(exchange: "Exchange", race: "Race", cluster: "ClusterState", now: float) -> None:
    assert exchange.host is not None
    exchange.tried.append(exchange.host)
    host = other_host(exchange)
    is_full = cluster.active >= cluster.max_requests or cluster.pending >= cluster.config.limits.max_pending
    if host is None or (is_full and not host.idle):
        return
    race.set_aside()
    cluster.retries += 1
    cluster.counts.hedges += 1
    exchange.is_retrying = True
    exchange.attempts += 1
    exchange.attempt(host, cluster, now)


class Race:
    """The attempts of one request besides the one at hand."""

    __slots__ = ("ending", "exchange", "own_is_late", "rivals")

    def __init__(self, exchange: "Exchange") -> None:
        self.exchange = exchange
        self.rivals: list[Rival] = []
        self.own_is_late = False
        """The attempt at hand has had its per-try timeout; it is not told again."""
        self.ending: tuple[int, str, str] | None = None
        """The attempt at hand has failed for good: what to answer (status, flags, why) if the rivals fail too."""

    def set_aside(self) -> None:
        """The attempt at hand becomes a rival."""
        exchange = self.exchange
        host, upstream = exchange.host, exchange.upstream
        assert host is not None
        assert upstream is not None
        rival = Rival(self, host, upstream)
        # A connection only uses the part of an exchange that a rival has as well.
        upstream.owner = cast("Exchange", rival)
        self.rivals.append(rival)
        self.own_is_late = False
        exchange.host = exchange.upstream = None
        exchange.is_retrying = exchange.is_plain = False

    def own_lost(self, status: int, flags: str, why: str) -> bool:
        """The attempt at hand has failed and is not repeated. True: a rival may still win, so nothing is answered yet."""
        if judge(is_good=False, others_in_flight=len(self.rivals)) is not Verdict.LOSE:
            return False
        exchange = self.exchange
        self.ending = status, flags, why
        exchange.flags, exchange.detail = flag.NONE, ""
        give_back(exchange)
        return True

    def verdict(self, *, is_good: bool) -> Verdict:
        """About the response of one rival."""
        own = 0 if self.ending is not None else 1
        return judge(is_good=is_good, others_in_flight=len(self.rivals) - 1 + own)

    def take_over(self, rival: "Rival") -> None:
        """The rival's attempt becomes the one at hand; the one that was is cancelled."""
        exchange = self.exchange
        cancel_retry(exchange)
        exchange.drop_upstream()
        exchange.release_host()
        give_back(exchange)
        self.rivals.remove(rival)
        self.ending = None
        self.own_is_late = True
        rival.has_won = True
        exchange.host, exchange.upstream = rival.host, rival.upstream
        exchange.is_retrying, exchange.is_plain = rival.in_budget, False
        exchange.flags, exchange.detail = flag.NONE, ""

    def on_rival_lost(self, rival: "Rival") -> None:
        """A rival has failed; if it was the last hope, say so to the client."""
        self.rivals.remove(rival)
        rival.release()
        if not self.rivals and self.ending is not None:
            self.exchange.reply_with(*self.ending)

    def end(self) -> None:
        """Cancel all rivals."""
        rivals, self.rivals = self.rivals, []
        for rival in rivals:
            self.exchange.plane.pool.discard(rival.upstream)
            rival.release()


class Rival:
    """The owner of a late attempt's connection. Until it wins it only watches; then it passes everything to the exchange."""

    __slots__ = (
        "attempt",
        "branch",
        "has_won",
        "host",
        "in_budget",
        "is_plain",
        "method",
        "race",
        "template",
        "upstream",
    )

    def __init__(self, race: Race, host: "EndpointState", upstream: "UpstreamConnection") -> None:
        exchange = race.exchange
        self.race = race
        self.host = host
        self.upstream = upstream
        self.in_budget = exchange.is_retrying
        """It holds a place in the retry budget."""
        self.attempt = exchange.attempts
        self.has_won = False
        self.is_plain = False
        self.method = exchange.method
        self.template = exchange.template
        self.branch = exchange.branch

    @property
    def request_done(self) -> bool:
        """Only whole requests are hedged."""
        return True

    @property
    def upstream_keeps_alive(self) -> bool:
        return self.race.exchange.upstream_keeps_alive

    def release(self) -> None:
        """It takes part no more."""
        cluster = self.host.cluster
        self.host.active -= 1
        cluster.active -= 1
        if self.in_budget:
            cluster.retries -= 1
        if self.attempt > 1:
            self.branch.series_for(self.host).retries += 1

    # -- called by the connection

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx says nothing about who wins."""

    def on_response(
        self, upstream: "UpstreamConnection", head: ResponseHead, kind: BodyKind, *, is_whole: bool
    ) -> bool:
        exchange = self.race.exchange
        policy = exchange.route.retry
        is_good = policy is None or not policy.wants_response(head.status, head.header)
        if self.race.verdict(is_good=is_good) is Verdict.LOSE:
            # Its failure was counted when it became late.
            self.race.rivals.remove(self)
            self.release()
            drop_response(exchange, upstream, head, is_whole=is_whole)
            return False
        self.race.take_over(self)
        return exchange.on_response(upstream, head, kind, is_whole=is_whole)

    def on_response_body(self, pieces: list[bytes]) -> None:
        self.race.exchange.on_response_body(pieces)

    def on_response_end(self, upstream: "UpstreamConnection", trailers: list[bytes], *, keeps: bool) -> None:
        self.race.exchange.on_response_end(upstream, trailers, keeps=keeps)

    def flush_response(self) -> None:
        if self.has_won:
            self.race.exchange.flush_response()

    def on_upstream_lost(self, upstream: "UpstreamConnection") -> None:
        if self.has_won:
            self.race.exchange.on_upstream_lost(upstream)
            return
        upstream.owner = None
        self.race.on_rival_lost(self)

    def on_upstream_malformed(self, upstream: "UpstreamConnection", error: HttpSyntaxError) -> None:
        if self.has_won:
            self.race.exchange.on_upstream_malformed(upstream, error)
            return
        self.race.exchange.plane.pool.discard(upstream)
        self.race.on_rival_lost(self)

    def on_upstream_full(self) -> None:
        """The request has been written whole; there is nobody to slow down."""

    def on_upstream_ready(self) -> None:
        """As `on_upstream_full`."""
