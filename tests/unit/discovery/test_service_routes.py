"""HTTPRoutes of Services: joined by precedence, judged per parent, built, and told in their status."""

from typing import Any

import pytest

from controlplane.discovery.localities import ANYWHERE
from controlplane.discovery.snapshot import Scope, Tables
from controlplane.discovery.status_text import CONTROLLER, render_status, says_the_same
from controlplane.discovery.verdicts import PolicyId, Verdict
from controlplane.discovery.world import World
from mesh.api.gateway import HttpRoute
from mesh.api.resources import HTTP_ROUTES, VIRTUAL_SERVICES, Json
from tests.every_http_rule import HTTP_RULES
from tests.unit.discovery.protos import routes
from tests.unit.discovery.small_mesh import SCOPE, WEB, Built, as_sidecar_sees, put_routes, put_service, small_world, to

pytestmark = pytest.mark.unit

OTHER = Scope(namespace="other")
PROGRAMMED = ("True", "Programmed", "1 connected proxies run by it")


def put_http_route(
    world: World,
    name: str,
    *rules: Json,
    namespace: str = "shop",
    generation: int = 1,
    created: str = "1",
    parent: Json | None = None,
    **spec: Any,
) -> None:
    meta = {
        "name": name,
        "namespace": namespace,
        "generation": generation,
        "creationTimestamp": created,
        "annotations": {"meshwork.dev/source": f"{name}.yaml:1"},
    }
    parents = [{"group": "", "kind": "Service", "name": "web", **(parent or {})}]
    obj = {"metadata": meta, "spec": {"parentRefs": parents, "rules": list(rules), **spec}}
    world.put_http_route((namespace, name), HttpRoute.of(obj))


def backend(name: str = "web", port: int = 80, **more: Any) -> Json:
    return {"name": name, "port": port, **more}


def rule(path: str = "/", kind: str = "PathPrefix", *refs: Json, **more: Any) -> Json:
    matches = [{"path": {"type": kind, "value": path}}]
    return {"matches": matches, "backendRefs": list(refs) or [backend()], **more}


def routed_world() -> World:
    """Without a VirtualService."""
    world = small_world()
    world.put_virtual_service(("shop", "web"), None)
    return world


def paths(tables: Tables, **where: str) -> list[str]:
    found = []
    for route in routes(tables, **where):
        match = route["match"]
        found.append(match.get("path") or match.get("path_separated_prefix") or match.get("prefix") or "regex")
    return found


def verdict(world: World, name: str = "r", namespace: str = "shop") -> Verdict:
    built = Built(world)
    built.build()
    return built.builder.policies.verdicts[PolicyId(HTTP_ROUTES, namespace, name)]


def test_rules_of_all_routes_are_joined_by_precedence() -> None:
    world = routed_world()
    put_http_route(world, "young", rule("/a"), rule("/a/b", "Exact"), rule("/"), created="2")
    put_http_route(world, "old", rule("/a"), rule("/a/bc"), created="1")
    tables = Built(world).build()
    assert paths(tables) == ["/a/b", "/a/bc", "/a", "/a", "/"]
    names = [route["metadata"]["filter_metadata"]["meshwork.dev"]["name"] for route in routes(tables)]
    assert names == ["young", "old", "old", "young", "young"]


def test_of_equally_old_routes_the_name_decides() -> None:
    world = routed_world()
    put_http_route(world, "b", rule("/a"))
    put_http_route(world, "a", rule("/a"))
    names = [r["metadata"]["filter_metadata"]["meshwork.dev"]["name"] for r in routes(Built(world).build())]
    assert names == ["a", "b"]


def test_a_route_of_the_clients_namespace_hides_the_services_own_there() -> None:
    world = routed_world()
    put_http_route(world, "own", rule("/own"))
    put_service(world, "local", "10.96.0.30", namespace="other")
    there = {"name": "web", "namespace": "shop"}
    put_http_route(world, "theirs", rule("/theirs", "PathPrefix", backend("local")), namespace="other", parent=there)
    built = Built(world)
    built.build(SCOPE, OTHER)
    assert paths(built.snapshot.scopes[SCOPE]) == ["/own"]
    assert paths(built.snapshot.scopes[OTHER]) == ["/theirs"]


def test_a_parents_port_leaves_other_ports_alone() -> None:
    world = routed_world()
    put_service(world, "web", "10.96.0.10", {"name": "http", "port": 80}, {"name": "http-b", "port": 81})
    put_http_route(world, "r", rule("/a"), parent={"port": 81})
    tables = Built(world).build()
    assert [route["name"] for route in routes(tables)] == ["default"]
    assert paths(tables, host=f"{WEB}:81", table="81") == ["/a"]
    put_http_route(world, "s", rule("/b"))
    tables = Built(world).build()
    assert paths(tables) == ["/b"]
    assert paths(tables, host=f"{WEB}:81", table="81") == ["/a", "/b"]


def test_the_sidecar_takes_a_split_of_an_http_route() -> None:
    world = routed_world()
    put_service(world, "canary", "10.96.0.20")
    modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-a", "value": "1"}]}}
    put_http_route(
        world, "r", rule("/a", "PathPrefix", backend(weight=9), backend("canary", weight=1), filters=[modifier])
    )
    table = as_sidecar_sees(Built(world).build()).route_tables["80"]
    (route,) = next(h for h in table.virtual_hosts if h.name == f"{WEB}:80").routes
    assert str(route.provenance) == "HTTPRoute shop/r spec.rules[0] (r.yaml:1)"
    assert route.request_headers.add[0].name == "x-a"


def test_the_sidecar_takes_every_field_of_an_http_route() -> None:
    """Its decoder refuses what it does not carry out."""
    world = routed_world()
    put_service(world, "canary", "10.96.0.20")
    put_service(world, "both", "10.96.0.21")
    put_http_route(world, "r", *HTTP_RULES)
    table = as_sidecar_sees(Built(world).build()).route_tables["80"]
    assert len(next(h for h in table.virtual_hosts if h.name == f"{WEB}:80").routes) == len(HTTP_RULES)


def test_a_missing_backend_is_told_and_heals() -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/", "PathPrefix", backend(), backend("canary")))
    (parent,) = verdict(world).parents
    assert (parent.is_accepted, parent.unresolved[0]) == (True, "BackendNotFound")
    (route,) = routes(Built(world).build())
    clusters = route["route"]["weighted_clusters"]["clusters"]
    assert [c["name"] for c in clusters] == [f"outbound|80||{WEB}", "BlackHoleCluster"]
    put_service(world, "canary", "10.96.0.20")
    (parent,) = verdict(world).parents
    assert parent.unresolved == ("", "")


def test_a_virtual_service_counts_and_the_conflict_names_both() -> None:
    world = small_world()
    put_http_route(world, "r", rule("/a"), created="0")
    found = verdict(world)
    assert (found.is_accepted, found.reason) == (False, "Conflict")
    assert "HTTPRoute shop/r (r.yaml:1) and VirtualService shop/web (web.yaml:14)" in found.parents[0].message
    built = Built(world)
    assert [route["name"] for route in routes(built.build())] == ["split"]
    assert built.builder.policies.verdicts[PolicyId(VIRTUAL_SERVICES, "shop", "web")].is_accepted
    put_routes(world, {"route": [to("v1")]}, generation=2, exportTo=["other"])
    there = {"name": "web", "namespace": "other"}
    assert verdict(world).reason == "Conflict"
    world.put_http_route(("shop", "r"), None)
    put_http_route(world, "r", rule("/a"), parent=there)
    assert verdict(world).is_accepted


@pytest.mark.parametrize(
    ("parent", "words"),
    [({"name": "gone"}, '"gone.shop.svc.cluster.local" is no Service'), ({"port": 81}, "has no port 81: it has 80")],
)
def test_parents_that_do_not_exist(parent: Json, words: str) -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/a"), parent=parent)
    found = verdict(world).parents[0]
    assert (found.is_accepted, found.reason) == (False, "NoMatchingParent")
    assert words in found.message


def test_routes_of_gateways_are_not_ours() -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/a"), parent={"group": "gateway.networking.k8s.io", "kind": "Gateway"})
    built = Built(world)
    built.build()
    assert PolicyId(HTTP_ROUTES, "shop", "r") not in built.builder.policies.verdicts


def test_the_last_good_version_stays_in_force() -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/a"))
    built = Built(world)
    built.build()
    put_http_route(world, "r", rule("no path"), generation=2)
    assert paths(built.build()) == ["/a"]
    found = built.builder.policies.verdicts[PolicyId(HTTP_ROUTES, "shop", "r")]
    assert (found.generation, found.is_accepted, found.parents[0].reason) == (2, False, "Invalid")
    assert "Generation 1 stays in force" in found.message


def status_of(world: World, current: Json | None = None, programmed: tuple[str, str, str] = PROGRAMMED) -> Json:
    view = HttpRoute.of({"status": current or {}})
    return render_status(verdict(world), programmed, view.status.parents, "now")


def test_status_has_three_conditions_per_parent() -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/", "PathPrefix", backend(), backend("gone")), generation=7)
    (parent,) = status_of(world)["parents"]
    assert parent["parentRef"] == {"group": "", "kind": "Service", "name": "web"}
    assert parent["controllerName"] == CONTROLLER
    found = {c["type"]: (c["status"], c["reason"], c["observedGeneration"]) for c in parent["conditions"]}
    assert found == {
        "Accepted": ("True", "Accepted", 7),
        "ResolvedRefs": ("False", "BackendNotFound", 7),
        "Programmed": ("True", "Programmed", 7),
    }


def test_status_keeps_what_others_wrote_and_its_own_times() -> None:
    world = routed_world()
    put_http_route(world, "r", rule("/a"))
    written = status_of(world)
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1}
    others = {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
        "controllerName": "example.com/edge",
        "conditions": [{**condition, "lastTransitionTime": "then"}],
    }
    for old in written["parents"][0]["conditions"]:
        old["lastTransitionTime"] = "before"
    current = {"parents": [others, *written["parents"]]}
    refused = status_of(world, current, ("False", "Refused", "1 proxies refused it"))
    assert refused["parents"][0] == others
    times = {c["type"]: c["lastTransitionTime"] for c in refused["parents"][1]["conditions"]}
    assert times == {"Accepted": "before", "ResolvedRefs": "before", "Programmed": "now"}
    view = HttpRoute.of({"status": current})
    assert says_the_same(status_of(world, current), view.status.parents)
    assert not says_the_same(refused, view.status.parents)


def test_new_http_routes_build_routes_only() -> None:
    built = Built(routed_world())
    built.build()
    before = built.builder.builds
    put_http_route(built.world, "r", rule("/a"))
    assert not built.world.dirty.is_structural
    built.build()
    assert built.builder.builds - before <= 2
    assert next(iter(built.snapshot.scopes)).place is ANYWHERE
