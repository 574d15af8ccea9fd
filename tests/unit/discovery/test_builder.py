"""What proxies get, read back with the sidecar's own decoder: it refuses any field it does not carry out."""

import pytest

from controlplane.discovery.errors import SnapshotError
from controlplane.discovery.facts import Protocol
from controlplane.discovery.resources import CDS, EDS, LDS, RDS, resource_of_bytes
from controlplane.discovery.snapshot import Scope, check_references
from mesh.resilience.retry import RetryOn
from mesh.routing.table import DirectResponse, Forward, Redirect, Route, VirtualHost
from sidecar.config import Snapshot
from tests.unit.discovery.small_mesh import (
    NO_INTERCEPTION,
    SCOPE,
    WEB,
    Built,
    as_sidecar_sees,
    put_pod,
    put_routes,
    put_rule,
    put_service,
    put_slice,
    small_world,
    to,
)

pytestmark = pytest.mark.unit


def seen(*scopes: Scope) -> Snapshot:
    return as_sidecar_sees(Built(small_world()).build(*scopes))


def host(snapshot: Snapshot, name: str = f"{WEB}:80", table: str = "80") -> VirtualHost:
    return next(h for h in snapshot.route_tables[table].virtual_hosts if h.name == name)


def only_route(snapshot: Snapshot) -> Route:
    (route,) = host(snapshot).routes
    return route


def forward(route: Route) -> Forward:
    assert isinstance(route.action, Forward)
    return route.action


def test_clusters_per_port_and_subset_with_endpoints_by_label() -> None:
    snapshot = seen()
    found = {
        name: [e.address for e in cluster.endpoints]
        for name, cluster in snapshot.clusters.items()
        if name.endswith(WEB)
    }
    assert found == {
        f"outbound|80||{WEB}": ["10.244.1.2", "10.244.1.3"],
        f"outbound|80|v1|{WEB}": ["10.244.1.2"],
        f"outbound|80|v2|{WEB}": ["10.244.1.3"],
    }
    subset = snapshot.clusters[f"outbound|80|v1|{WEB}"]
    assert subset.outlier is not None
    assert (subset.outlier.consecutive_5xx, subset.outlier.enforcing_consecutive_gateway) == (3, 0)
    assert (subset.limits.max_requests, subset.lb_policy.name) == (1024, "LEAST_REQUEST")
    assert subset.provenance is not None
    assert (subset.provenance.kind, subset.provenance.field) == ("DestinationRule", "spec.subsets[0]")
    workload = subset.endpoints[0].workload
    assert (workload["pod"], workload["version"], workload["workload"]) == ("web-1", "v1", "web-1")
    assert {"PassthroughCluster", "BlackHoleCluster", "mesh-traces"} <= snapshot.clusters.keys()


def test_split_carries_weights_default_retries_and_provenance() -> None:
    route = only_route(seen())
    action = forward(route)
    assert [(c.name, c.weight) for c in action.clusters] == [
        (f"outbound|80|v1|{WEB}", 90),
        (f"outbound|80|v2|{WEB}", 10),
    ]
    assert action.timeout_s is None
    assert action.retry is not None
    assert action.retry.max_retries == 2
    assert action.retry.conditions == RetryOn.CONNECT_FAILURE | RetryOn.REFUSED_STREAM | RetryOn.RESET_BEFORE_REQUEST
    assert route.provenance is not None
    assert str(route.provenance) == "VirtualService shop/web spec.http[0] (web.yaml:14)"


def test_bare_name_means_the_service_of_the_clients_own_namespace() -> None:
    mine, theirs = seen(), seen(Scope(namespace="other"))
    assert "web" in host(mine).domains
    assert "web" not in host(mine, "web.other.svc.cluster.local:80").domains
    assert "web" in host(theirs, "web.other.svc.cluster.local:80").domains
    assert {"web.shop", "web.shop.svc:80", WEB, "10.96.0.10"} <= set(host(theirs).domains)


def test_listeners_by_protocol() -> None:
    listeners = {listener.name: listener for listener in seen().listeners}
    assert listeners.keys() == {
        "virtualOutbound",
        "virtualInbound",
        "0.0.0.0_80",
        "0.0.0.0_9000",
        "10.96.0.11_5432",
        "10.96.0.12_9000",
    }
    assert listeners["virtualOutbound"].use_original_dst
    assert not listeners["0.0.0.0_80"].bind
    assert [chain.detected_http for chain in listeners["10.96.0.11_5432"].chains] == [False]
    assert sorted(chain.detected_http for chain in listeners["10.96.0.12_9000"].chains) == [False, True]


def test_inbound_listener_has_the_pods_own_ports() -> None:
    built = Built(small_world())
    built.build()
    pod = built.world.pods["shop", "web-1"]
    put_service(built.world, "odd", "10.96.0.12", {"port": 9000, "targetPort": "http"}, selector={"app": "web"})
    scope = built.builder.scope_of("shop", dict(pod.labels), pod, intercepts=True)
    assert scope.inbound == ((8080, Protocol.HTTP),)
    snapshot = as_sidecar_sees(built.build(scope))
    inbound = next(listener for listener in snapshot.listeners if listener.name == "virtualInbound")
    assert [chain.destination_port for chain in inbound.chains] == [8080, None]
    assert [(e.address, e.port) for e in snapshot.clusters["inbound|8080||"].endpoints] == [("127.0.0.1", 8080)]


def test_without_interception_one_listener_routes_everything_by_host() -> None:
    snapshot = seen(NO_INTERCEPTION)
    (listener,) = snapshot.listeners
    assert (listener.address, listener.port, listener.bind) == ("127.0.0.1", 15001, True)
    assert snapshot.route_tables.keys() == {"http_proxy"}
    assert "odd" in host(snapshot, "odd.shop.svc.cluster.local:9000", "http_proxy").domains
    last = snapshot.route_tables["http_proxy"].virtual_hosts[-1]
    assert isinstance(last.routes[0].action, DirectResponse)


def test_unknown_hosts_pass_through() -> None:
    last = seen().route_tables["80"].virtual_hosts[-1]
    assert last.domains == ("*",)
    assert forward(last.routes[0]).clusters[0].name == "PassthroughCluster"


def test_matches_redirects_and_rewrites_reach_the_sidecar() -> None:
    world = small_world()
    match = {
        "uri": {"prefix": "/api"},
        "headers": {"x-user": {"regex": "j.*"}, "x-any": {}},
        "withoutHeaders": {"x-debug": {}, "x-mode": {"exact": "slow"}},
        "queryParams": {"v": {"exact": "2"}},
        "method": {"exact": "GET"},
    }
    put_routes(
        world,
        {"match": [match], "route": [to("v1")], "rewrite": {"uri": "/", "authority": "inner"}, "timeout": "3s"},
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 308}},
        {"match": [{"uri": {"prefix": "/no"}}], "directResponse": {"status": 403, "body": {"string": "no"}}},
        {"route": [to()], "headers": {"request": {"set": {"x-a": "1"}}, "response": {"remove": ["x-b"]}}},
    )
    routes = host(as_sidecar_sees(Built(world).build())).routes
    first = forward(routes[0])
    assert (first.prefix_rewrite, first.host_rewrite, first.timeout_s) == ("/", "inner", 3.0)
    assert len(routes[0].match.headers) == 5
    assert routes[1].action == Redirect(path="/new", status=308)
    assert routes[2].action == DirectResponse(status=403, body=b"no")
    assert routes[3].request_headers.add[0].name == "x-a"
    assert routes[3].response_headers.remove == ("x-b",)


def test_source_labels_and_namespaces_select_routes_per_client() -> None:
    world = small_world()
    put_routes(
        world,
        {"match": [{"sourceLabels": {"tier": "beta"}}], "route": [to("v2")]},
        {"match": [{"sourceNamespace": "other"}], "route": [to("v1")]},
        {"route": [to()]},
    )
    built = Built(world)
    built.build()
    beta = built.builder.scope_of("shop", {"tier": "beta", "app": "x"}, None, intercepts=True)
    assert beta.labels == (("tier", "beta"),)
    names = [
        [forward(route).clusters[0].name for route in host(as_sidecar_sees(built.build(scope))).routes]
        for scope in (beta, SCOPE, Scope(namespace="other"))
    ]
    v1, v2, whole = f"outbound|80|v1|{WEB}", f"outbound|80|v2|{WEB}", f"outbound|80||{WEB}"
    assert names == [[v2, whole], [whole], [v1, whole]]


def test_policies_exported_to_one_namespace_stay_there() -> None:
    world = small_world()
    put_routes(world, {"route": [to("v1")]}, exportTo=["."])
    built = Built(world)
    inside = forward(only_route(as_sidecar_sees(built.build(SCOPE))))
    outside = forward(only_route(as_sidecar_sees(built.build(Scope(namespace="other")))))
    assert (inside.clusters[0].name, outside.clusters[0].name) == (f"outbound|80|v1|{WEB}", f"outbound|80||{WEB}")


def test_a_destination_that_has_gone_becomes_the_black_hole() -> None:
    world = small_world()
    built = Built(world)
    built.build()
    put_rule(world, generation=2, subsets=[{"name": "v1", "labels": {"version": "v1"}}])
    snapshot = as_sidecar_sees(built.build())
    assert [c.name for c in forward(only_route(snapshot)).clusters] == [f"outbound|80|v1|{WEB}", "BlackHoleCluster"]


def test_hosts_that_are_no_service_are_routed_on_port_80() -> None:
    world = small_world()
    put_routes(world, {"route": [to()]}, name="shop", hosts=["shop.example.com", "*.example.com"])
    snapshot = as_sidecar_sees(Built(world).build())
    assert host(snapshot, "*.example.com:80").domains == ("*.example.com", "*.example.com:80")
    assert forward(host(snapshot, "shop.example.com:80").routes[0]).clusters[0].name == f"outbound|80||{WEB}"


def test_a_pod_keeps_its_inbound_port_when_its_service_turns_away() -> None:
    world = small_world()
    built = Built(world)
    built.builder.settle_policies()
    pod = world.pods[("shop", "web-1")]
    before = built.builder.scope_of("shop", dict(pod.labels), pod, intercepts=True)
    world.put_service(("shop", "web"), None)
    after = built.builder.scope_of("shop", dict(pod.labels), pod, intercepts=True)
    assert before.inbound == after.inbound == ((8080, Protocol.HTTP),)


def test_endpoint_changes_touch_only_their_service() -> None:
    built = Built(small_world())
    before = built.build()
    count = built.builder.builds
    put_slice(built.world, "web", ("10.244.1.2", "web-1"))
    assert built.world.dirty.has_removals
    after = built.build()
    assert built.builder.builds == count + 1
    assert all(after[type_url] is before[type_url] for type_url in (CDS, LDS, RDS))
    changed = {name for name, r in after[EDS].items() if before[EDS][name].version != r.version}
    assert changed == {f"outbound|80||{WEB}", f"outbound|80|v2|{WEB}"}


def test_a_pod_on_its_way_out_leaves_before_its_endpoint_does() -> None:
    built = Built(small_world())
    built.build()
    put_pod(built.world, "web-2", "web", leaving=True, version="v2")
    assert built.world.dirty.has_removals
    snapshot = as_sidecar_sees(built.build())
    assert [e.address for e in snapshot.clusters[f"outbound|80||{WEB}"].endpoints] == ["10.244.1.2"]
    assert built.snapshot.pods == {("shop", "web-1")}


def test_new_weights_rebuild_routes_only() -> None:
    built = Built(small_world())
    before = built.build()
    count = built.builder.builds
    put_routes(built.world, {"route": [to("v1", 50), to("v2", 50)]}, generation=2)
    after = built.build()
    assert [after[t] is before[t] for t in (CDS, EDS, LDS, RDS)] == [True, True, True, False]
    assert built.builder.builds == count + 2  # the virtual host and its route configuration


def test_equal_worlds_give_equal_bytes() -> None:
    one, other = Built(small_world()).build(), Built(small_world()).build()
    for type_url in (CDS, EDS, LDS, RDS):
        assert {n: r.version for n, r in one[type_url].items()} == {n: r.version for n, r in other[type_url].items()}


def test_nothing_inconsistent_is_published() -> None:
    tables = dict(Built(small_world()).build())
    check_references(tables)
    broken = {**tables, CDS: {n: r for n, r in tables[CDS].items() if "|v2|" not in n}}
    with pytest.raises(SnapshotError, match="v2"):
        check_references(broken)
    extra = resource_of_bytes(RDS, "81", b"")
    with pytest.raises(SnapshotError, match="'81'"):
        check_references({**tables, RDS: {**tables[RDS], "81": extra}})
