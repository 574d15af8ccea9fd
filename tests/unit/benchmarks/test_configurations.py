"""Equal configurations: our decoder takes the bootstrap files, and every peer gets the same routes and endpoints."""

from pathlib import Path

import pytest

from benchmarks.data_plane.cases import Heads, Request, Setup
from benchmarks.data_plane.envoy_file import bootstrap
from benchmarks.data_plane.haproxy_file import haproxy_files
from benchmarks.data_plane.matching import compiled_table, request_for
from benchmarks.data_plane.nginx_file import nginx_peer
from benchmarks.data_plane.targets import Target, route_entries
from benchmarks.data_plane.wrk import path, script
from mesh.routing.table import Forward
from sidecar.config import HttpFilter, Snapshot
from sidecar.decode.bootstrap import parse_bootstrap

pytestmark = pytest.mark.unit

SETUPS = [Setup(), Setup(features=False), Setup(hops=2), Setup(routes=9), Setup(clusters=3), Setup(regex_routes=2)]


def _target(setup: Setup, *, is_resilient: bool = True) -> Target:
    return Target(
        setup=setup, listen=10000, stable=(9001, 9002), canary=(9003,), collector=4317, is_resilient=is_resilient
    )


def _decoded(setup: Setup, *, is_resilient: bool = True) -> tuple[Snapshot, HttpFilter]:
    snapshot = parse_bootstrap(bootstrap(_target(setup, is_resilient=is_resilient)), "bench.json").snapshot
    found = snapshot.listeners[0].chains[0].filter
    assert isinstance(found, HttpFilter)
    return snapshot, found


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_our_sidecar_takes_every_bootstrap(setup: Setup) -> None:
    snapshot, http = _decoded(setup)
    assert snapshot.listeners[0].port == 10000
    assert (http.tracing is not None) == setup.features


def test_all_features_are_on() -> None:
    snapshot, http = _decoded(Setup())
    assert http.inline_routes is not None
    (route,) = http.inline_routes.virtual_hosts[0].routes
    assert isinstance(route.action, Forward)
    assert [(one.name, one.weight) for one in route.action.clusters] == [("stable", 90), ("canary", 10)]
    assert route.action.retry is not None
    assert snapshot.clusters["stable"].outlier is not None
    assert len(snapshot.clusters["stable"].endpoints) == 2
    assert http.tracing is not None
    assert http.tracing.sampling_percent == 1
    assert http.tracing.collector_cluster in snapshot.clusters


def test_the_second_hop_only_forwards_and_traces() -> None:
    snapshot, http = _decoded(Setup(hops=2), is_resilient=False)
    assert http.inline_routes is not None
    (route,) = http.inline_routes.virtual_hosts[0].routes
    assert isinstance(route.action, Forward)
    assert (len(route.action.clusters), route.action.retry) == (1, None)
    assert snapshot.clusters["stable"].outlier is None
    assert http.tracing is not None


def test_every_cluster_has_three_endpoints_and_a_route() -> None:
    snapshot, http = _decoded(Setup(clusters=3))
    assert http.inline_routes is not None
    assert [host.domains for host in http.inline_routes.virtual_hosts] == [
        ("svc-0.shop",),
        ("svc-1.shop",),
        ("svc-2.shop",),
    ]
    assert all(len(snapshot.clusters[f"svc-{n}.shop"].endpoints) == 3 for n in range(3))


def test_a_request_for_each_route_takes_it() -> None:
    table, entries = compiled_table(30), route_entries(30)
    found = [table.find(request_for(entry)) for entry in entries]
    assert all(one is not None for one in found)
    places = [table.table.virtual_hosts[0].routes.index(one.route) for one in found if one is not None]
    assert places == list(range(30))


def test_haproxy_and_nginx_know_every_route() -> None:
    setup = Setup(routes=30)
    files = haproxy_files(_target(setup), Path("/bench"))
    text = nginx_peer(_target(setup), Path("/bench"))
    for entry in route_entries(30):
        key = entry.header or entry.path
        assert f"{key} {entry.cluster}\n" in files[f"{entry.kind}.map"]
        assert f" {key} " in text
    assert {entry.cluster for entry in route_entries(30)} == {"stable", "canary"}


@pytest.mark.parametrize("setup", [Setup(), Setup(features=False), Setup(hops=2), Setup(routes=9)], ids=str)
def test_braces_of_nginx_and_haproxy_are_balanced(setup: Setup) -> None:
    for text in (
        nginx_peer(_target(setup), Path("/bench")),
        haproxy_files(_target(setup), Path("/bench"))["haproxy.cfg"],
    ):
        assert text.count("{") == text.count("}")
        assert "{{" not in text


def test_unique_heads_differ_in_path_and_request_id() -> None:
    lua = script(Setup(routes=3), Request(heads=Heads.UNIQUE))
    assert 'headers["x-request-id"] = "@ID@"' in lua
    assert [line.count("@ID@") for line in lua.splitlines() if line.startswith("  add(")] == [1, 1, 1]
    assert 'add("/shop/by-header/orders/@ID@", "x-route", "r-2")' in lua


def test_uploads_are_posts_of_their_size_and_churn_closes() -> None:
    upload = Request(heads=Heads.REPEAT, upload_bytes=1024)
    assert path(upload) == "/sink"
    assert 'wrk.method = "POST"\nwrk.body = string.rep("x", 1024)' in script(Setup(), upload)
    assert 'wrk.headers["connection"] = "close"' in script(Setup(), Request(is_churn=True))
    assert path(Request(heads=Heads.REPEAT, download_bytes=65536)) == "/bytes/65536"
