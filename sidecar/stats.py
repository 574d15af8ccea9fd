"""What the data plane counts: plain ints in slots, read by a collector at scrape time.

The hot path adds to a `ResultStats` it has at hand; nothing here formats, locks or allocates per request. Values only grow
while the process lives, also across configurations: a slot is found again by its key. Series are bounded; beyond the bound
they share one (`endpoint == ""`), which `ProxyStats.overflowed` reports.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.routing.table import Provenance
from sidecar.config import Direction
from sidecar.filters.counts import FilterCounts

BUCKET_BOUNDS = (
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0, 300000.0,
    600000.0, 1800000.0, 3600000.0,
)  # fmt: skip
"""Upper bounds (inclusive) of every histogram: milliseconds or bytes. Source: Envoy's default histogram buckets."""

FOLD_AT = 32
"""Requests that wait to be sorted into a result's histograms."""

MAX_SERIES = 4000
"""Request and TCP series each. Source: facts, "a hard series budget per proxy" (istio 19090)."""


class Histogram:
    """Counts per bucket (the last one is +Inf) and the sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKET_BOUNDS) + 1)
        """Not cumulative: buckets[i] counts values in (BUCKET_BOUNDS[i-1], BUCKET_BOUNDS[i]]."""
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(BUCKET_BOUNDS, value)] += 1
        self.total += value

    def take(self, values: Sequence[float]) -> None:
        """Add many values at once; they are sorted."""
        self.total += sum(values)
        at, count = 0, len(values)
        while at < count:
            bucket = bisect_left(BUCKET_BOUNDS, values[at])
            end = bisect_right(values, BUCKET_BOUNDS[bucket], at) if bucket < len(BUCKET_BOUNDS) else count
            self.buckets[bucket] += end - at
            at = end


class ResultStats:
    """All requests of one series that ended alike.

    Requests wait in a short list and are sorted into the histograms some dozens at a time: a third of the cost of one by one (measured).
    """

    __slots__ = ("_count", "_duration_ms", "_request_bytes", "_response_bytes", "pending")

    def __init__(self) -> None:
        self._count = 0
        self._duration_ms = Histogram()
        self._request_bytes = Histogram()
        self._response_bytes = Histogram()
        self.pending: list[tuple[float, int, int]] = []
        """Waiting (milliseconds, request bytes, response bytes); the hot path appends and calls `fold` when there are FOLD_AT."""

    def add(self, duration_ms: float, request_bytes: int, response_bytes: int) -> None:
        """Count one request."""
        self.pending.append((duration_ms, request_bytes, response_bytes))
        if len(self.pending) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Move what waits into the histograms."""
        if not self.pending:
            return
        self._count += len(self.pending)
        durations, requests, responses = zip(*self.pending, strict=True)
        self.pending.clear()
        self._duration_ms.take(sorted(durations))
        self._request_bytes.take(sorted(requests))
        self._response_bytes.take(sorted(responses))

    @property
    def count(self) -> int:
        return self._count + len(self.pending)

    @property
    def duration_ms(self) -> Histogram:
        """From the first byte of the request to the last of the response."""
        self.fold()
        return self._duration_ms

    @property
    def request_bytes(self) -> Histogram:
        """Head and body."""
        self.fold()
        return self._request_bytes

    @property
    def response_bytes(self) -> Histogram:
        self.fold()
        return self._response_bytes


ResultKey = tuple[int, str]
"""(status, response flags). Status 0: the client went away before a response. Flags as Envoy's, joined by commas, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """What a series is about. Labels of Istio's metrics are derived from it at scrape time."""

    direction: Direction
    listener: str
    route: str
    """Virtual host and route name, `vhost/route`; empty when no route matched."""
    cluster: str
    endpoint: str
    """`address:port`; empty when no endpoint was chosen."""


@dataclass(slots=True, eq=False)
class RequestSeries:
    """Requests of one (listener, route, cluster, endpoint)."""

    key: SeriesKey
    workload: Mapping[str, str]
    """The endpoint's workload (`Endpoint.workload`)."""
    provenance: Provenance | None
    results: dict[ResultKey, ResultStats] = field(default_factory=dict)
    retries: int = 0
    """Attempts beyond the first that ended at this endpoint."""

    def result(self, status: int, flags: str) -> ResultStats:
        """The slot for one outcome; made on first use."""
        found = self.results.get((status, flags))
        if found is None:
            found = self.results[(status, flags)] = ResultStats()
        return found


@dataclass(slots=True, eq=False)
class TcpSeries:
    """Connections of one (listener, cluster, endpoint)."""

    key: SeriesKey
    workload: Mapping[str, str]
    opened: int = 0
    closed: int = 0
    sent_bytes: int = 0
    """To the client."""
    received_bytes: int = 0
    """From the client."""


@dataclass(slots=True, eq=False)
class ProxyStats:
    """Everything one data plane counts. A collector reads it between two callbacks of the loop, so it is consistent."""

    downstream_connections_opened: int = 0
    downstream_connections_active: int = 0
    downstream_refused: int = 0
    """Connections closed at once because `Plane.max_downstream_connections` were open."""
    malformed: dict[str, int] = field(default_factory=dict)
    """Requests refused by the codec, by `HttpSyntaxError.reason`."""
    loops_refused: int = 0
    """Connections made straight to an interception port."""
    overflowed: bool = False
    filters: FilterCounts = field(default_factory=FilterCounts)
    """What routes' filters did."""
    _requests: dict[SeriesKey, RequestSeries] = field(default_factory=dict)
    _tcp: dict[SeriesKey, TcpSeries] = field(default_factory=dict)

    def request_series(
        self, key: SeriesKey, workload: Mapping[str, str], provenance: Provenance | None
    ) -> RequestSeries:
        """The series for `key`, or the shared one when there are too many."""
        found = self._requests.get(key)
        if found is not None:
            return found
        if len(self._requests) >= MAX_SERIES:
            self.overflowed = True
            key, workload = _shared(key), {}
            if key in self._requests:
                return self._requests[key]
        found = self._requests[key] = RequestSeries(key, workload, provenance)
        return found

    def tcp_series(self, key: SeriesKey, workload: Mapping[str, str]) -> TcpSeries:
        """As `request_series`, for TCP."""
        found = self._tcp.get(key)
        if found is not None:
            return found
        if len(self._tcp) >= MAX_SERIES:
            self.overflowed = True
            key, workload = _shared(key), {}
            if key in self._tcp:
                return self._tcp[key]
        found = self._tcp[key] = TcpSeries(key, workload)
        return found

    def all_requests(self) -> Iterator[RequestSeries]:
        """Every request series, in order of first use."""
        yield from self._requests.values()

    def all_tcp(self) -> Iterator[TcpSeries]:
        """Every TCP series, in order of first use."""
        yield from self._tcp.values()

    def count_malformed(self, reason: str) -> None:
        self.malformed[reason] = self.malformed.get(reason, 0) + 1


def _shared(key: SeriesKey) -> SeriesKey:
    return SeriesKey(direction=key.direction, listener=key.listener, route="", cluster="", endpoint="")
