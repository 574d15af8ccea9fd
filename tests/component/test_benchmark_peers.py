"""The benchmarks start and measure a real sidecar; peers that only `make bench` installs are left to it."""

import http.client
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.data_plane.cases import Setup
from benchmarks.data_plane.machine import ROOT, place
from benchmarks.data_plane.measure import Meter
from benchmarks.data_plane.peers import Peer, Site, running
from benchmarks.data_plane.processes import Pinned, free_ports
from benchmarks.data_plane.spans import SpanSink

pytestmark = pytest.mark.component

REQUESTS = 200


@pytest.fixture
def sink() -> Iterator[SpanSink]:
    with SpanSink() as entered:
        yield entered


@pytest.fixture
def site(tmp_path: Path, sink: SpanSink) -> Iterator[Site]:
    """As `open_site`, with Python's own server for nginx."""
    (port,) = free_ports(1)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "orders").write_text("61 bytes or so")
    command = [
        sys.executable,
        "-m",
        "http.server",
        str(port),
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path / "www"),
    ]
    placement = place(os.sched_getaffinity(0))
    upstream = Pinned("upstream", command, placement.upstream, tmp_path, ROOT)
    try:
        upstream.wait_for(port)
        yield Site(
            folder=tmp_path,
            placement=placement,
            upstream=upstream,
            stable=(port, port),
            canary=port,
            collector=sink.port,
        )
    finally:
        upstream.stop()


def _ask(peer: Peer, count: int) -> set[int]:
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
    statuses = set()
    for _ in range(count):
        connection.request("GET", "/orders")
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    connection.close()
    return statuses


def test_requests_go_through_two_hops_and_their_cost_is_seen(site: Site) -> None:
    with running(site, Setup(hops=2), ["meshwork"]) as peers:
        peer = peers["meshwork"]
        meter = Meter(site, peer)
        assert _ask(peer, REQUESTS) == {200}
        used = meter.read()
        assert len(peer.processes) == 2
        assert 0 < used.proxy_s < used.wall_s * 2
        assert used.upstream_s > 0
        assert 0 < sum(peer.cpu_s_by_thread().values()) <= peer.cpu_s() + 0.1
        assert 20 < peer.rss_mib() < 400
    assert not any(process.is_running for process in peer.processes)


def test_spans_reach_the_sink(site: Site, sink: SpanSink) -> None:
    with running(site, Setup(), ["meshwork"]) as peers:
        deadline = time.monotonic() + 20
        while not sink.spans["meshwork-1"] and time.monotonic() < deadline:
            assert _ask(peers["meshwork"], REQUESTS) == {200}  # one in a hundred is traced
    assert sink.spans["meshwork-1"] > 0


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    process = Pinned("broken", [sys.executable, "-c", "raise SystemExit('no such option')"], (0,), tmp_path, ROOT)
    with pytest.raises(RuntimeError, match=r"broken does not listen on 127\.0\.0\.1:9\nno such option"):
        process.wait_for(9)
