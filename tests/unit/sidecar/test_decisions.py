"""The data plane's small pure parts: chains, detection, dispatch, ids, stats, log lines, clusters."""

import json
import random

import pytest

from mesh.balance.endpoint import Endpoint, Health
from mesh.routing.table import WeightedCluster
from sidecar.access_log import format_json, format_text
from sidecar.chains import choose_chain
from sidecar.cluster import ClusterState
from sidecar.config import Cluster, ClusterKind, Direction, FilterChain, Listener, Snapshot, TcpFilter
from sidecar.detect import Protocol, sniff
from sidecar.ids import RequestIds
from sidecar.inbound import dispatch as inbound
from sidecar.outbound.dispatch import OutboundDispatch
from sidecar.records import RequestRecord
from sidecar.stats import BUCKET_BOUNDS, MAX_SERIES, Histogram, ProxyStats, SeriesKey

pytestmark = pytest.mark.unit

TCP = TcpFilter(clusters=(WeightedCluster(name="c"),))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", Protocol.UNDECIDED),
        (b"GE", Protocol.UNDECIDED),
        (b"GET / HTTP/1.1", Protocol.UNDECIDED),
        (b"GET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"\r\nPOST /x HTTP/1.0\r\nHo", Protocol.HTTP1),
        (b"GET key\r\n", Protocol.OTHER),
        (b"PROPFIND /x HTTP/1.1\r\n", Protocol.HTTP1),
        (b"VERSION-CONTROL /x HTTP/1.1\r\n", Protocol.HTTP1),
        (b"BASELINE-CONTRO", Protocol.UNDECIDED),
        (b"CONNECT db:5432 HTTP/1.1\r\n", Protocol.HTTP1),
        (b"GET / HTTP/1.2\r\n", Protocol.HTTP1),
        (b"GET / HTTP/1.10\r\n", Protocol.OTHER),
        (b"GET / HTTP/2.0\r\n", Protocol.OTHER),
        (b"SUBSCRIBE news\r\n", Protocol.OTHER),
        (b"FROBNICATE / HTTP/1.1\r\n", Protocol.OTHER),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol.OTHER),
        (b"\x16\x03\x01", Protocol.OTHER),
        (b"*1\r\n$4\r\nPING\r\n", Protocol.OTHER),
        (b"GET /" + b"a" * 9000, Protocol.OTHER),
    ],
)
def test_sniff(data: bytes, found: Protocol) -> None:
    assert sniff(data) is found


def listener(*chains: FilterChain, **changes: object) -> Listener:
    values: dict[str, object] = {"name": "l", "address": "0.0.0.0", "port": 15001, "chains": chains, **changes}
    return Listener(**values)  # type: ignore[arg-type]  # by name


def chain(name: str, port: int | None = None, *, detected: bool = False) -> FilterChain:
    return FilterChain(name=name, destination_port=port, detected_http=detected, filter=TCP)


@pytest.mark.parametrize(
    ("chains", "http", "otherwise"),
    [
        ((chain("any"),), None, "any"),
        ((chain("any"), chain("port", 80)), None, "port"),
        ((chain("http", detected=True), chain("tcp")), "http", "tcp"),
        ((chain("http", detected=True), chain("port", 80)), None, "port"),
        ((chain("http", 80, detected=True), chain("tcp")), "http", "tcp"),
        ((chain("http", detected=True),), "http", None),
    ],
)
def test_most_specific_chain_wins(chains: tuple[FilterChain, ...], http: str | None, otherwise: str | None) -> None:
    choice = choose_chain(listener(*chains), 80)
    assert choice is not None
    assert (choice.if_http[0] if choice.if_http else None) == http
    assert (choice.otherwise[0] if choice.otherwise else None) == otherwise


def test_no_chain_for_a_port() -> None:
    assert choose_chain(listener(chain("x", 80)), 81) is None
    assert inbound.choose(listener(chain("x", 80)), ("10.0.0.1", 81)) is None


def test_outbound_prefers_the_address_then_the_port_then_itself() -> None:
    accepted_by = listener(chain("passthrough"), name="virtualOutbound")
    exact = listener(chain("exact"), name="a", address="10.96.0.9", port=80, bind=False)
    any_address = listener(chain("any"), name="b", port=80, bind=False)
    dispatch = OutboundDispatch(Snapshot(listeners=(accepted_by, any_address, exact)))
    for destination, name in (
        (("10.96.0.9", 80), "a"),
        (("10.96.0.8", 80), "b"),
        (("10.96.0.8", 81), "virtualOutbound"),
    ):
        choice = dispatch.choose(accepted_by, destination)
        assert choice is not None
        assert choice.listener.name == name


def test_request_ids_are_unique_and_look_like_uuids() -> None:
    ids = RequestIds(random.Random(1))
    made = [ids.make() for _ in range(70000)]
    assert len(set(made)) == len(made)
    assert all(len(part) == size for part, size in zip(made[0].split(b"-"), (8, 4, 4, 4, 12), strict=True))
    assert made[0][14:15] == b"4"


def test_histogram_bounds_are_inclusive() -> None:
    histogram = Histogram()
    for value in (0.5, 0.6, 1.0, 5000000.0):
        histogram.add(value)
    assert histogram.buckets[0] == 1
    assert histogram.buckets[1] == 2
    assert histogram.buckets[len(BUCKET_BOUNDS)] == 1
    assert histogram.total == pytest.approx(5000002.1)


def test_series_are_bounded() -> None:
    stats = ProxyStats()

    def key(n: int) -> SeriesKey:
        return SeriesKey(direction=Direction.OUTBOUND, listener="l", route="r", cluster="c", endpoint=str(n))

    for n in range(MAX_SERIES + 50):
        stats.request_series(key(n), {}, None).result(200, "").add(1.0, 1, 1)
        stats.tcp_series(key(n), {}).opened += 1
    assert stats.overflowed
    assert sum(series.results[(200, "")].count for series in stats.all_requests()) == MAX_SERIES + 50
    assert sum(series.opened for series in stats.all_tcp()) == MAX_SERIES + 50
    assert len(list(stats.all_requests())) == MAX_SERIES + 1


RECORD = RequestRecord(
    direction=Direction.OUTBOUND, listener="l", start_s=0.25, duration_ms=1.25, method="GET", target='/a"\x1b[31m',
    authority="a", minor=1, status=200, flags="", detail="", request_bytes=1, response_bytes=2, attempts=1, cluster="c",
    endpoint="e:1", route="v/r", provenance=None, request_id="i", client="c:1", service="s",
)  # fmt: skip


def test_log_lines_cannot_be_forged() -> None:
    text = format_text(RECORD).decode()
    assert text.startswith(
        '[1970-01-01T00:00:00.250Z] "GET /a\\"\\x1b[31m HTTP/1.1" 200 - 1 2 1.2 1 "i" "a" "e:1" c "v/r" "-"\n'
    )
    assert json.loads(format_json(RECORD))["path"] == '/a"\x1b[31m'


def endpoints(*specs: tuple[str, int, Health]) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address=a, port=80, priority=p, health=h) for a, p, h in specs)


def available(config: Cluster) -> list[str]:
    return sorted(host.address for host in ClusterState(config, random.Random(1)).available)


def test_draining_endpoints_get_nothing_and_unhealthy_ones_only_in_panic() -> None:
    up, down, draining = Health.HEALTHY, Health.UNHEALTHY, Health.DRAINING
    some = endpoints(("a", 0, up), ("b", 0, up), ("c", 0, down), ("d", 0, draining))
    assert available(Cluster(name="c", endpoints=some)) == ["a", "b"]
    most = endpoints(("a", 0, up), ("b", 0, down), ("c", 0, down))
    assert available(Cluster(name="c", endpoints=most)) == ["a", "b", "c"]
    assert available(Cluster(name="c", endpoints=most, panic_threshold_percent=0)) == ["a"]


def test_next_priority_takes_over() -> None:
    up, down = Health.HEALTHY, Health.UNHEALTHY
    assert available(Cluster(name="c", endpoints=endpoints(("a", 0, up), ("b", 1, up)))) == ["a"]
    assert available(Cluster(name="c", endpoints=endpoints(("a", 0, down), ("b", 1, up)))) == ["b"]


def test_endpoint_state_survives_an_update() -> None:
    up = Health.HEALTHY
    state = ClusterState(Cluster(name="c", endpoints=endpoints(("a", 0, up), ("b", 0, up))), random.Random(1))
    kept, gone = state.hosts[("a", 80)], state.hosts[("b", 80)]
    state.update(Cluster(name="c", endpoints=endpoints(("a", 0, up), ("x", 0, up))))
    assert state.hosts[("a", 80)] is kept
    assert gone.is_removed
    assert sorted(host.address for host in state.available) == ["a", "x"]


def test_original_destinations_are_bounded() -> None:
    state = ClusterState(Cluster(name="PassthroughCluster", kind=ClusterKind.ORIGINAL_DST), random.Random(1))
    for n in range(5000):
        state.original_host((f"10.0.{n // 250}.{n % 250 + 1}", 80))
    assert len(state.hosts) <= 1024
    assert state.original_host(None) is None
