"""Endpoints from pods, and their packing into slices."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.controllers.endpoints import PortKey, endpoints_of, legacy_subsets
from controlplane.controllers.endpoints_controller import mirrored
from controlplane.controllers.slices import CONTROLLER, SliceOwner, SlicePlan, plan_slices
from mesh.api.core import Endpoints, Service
from mesh.api.pod import Pod
from mesh.api.resources import Json

pytestmark = pytest.mark.unit

_HTTP: PortKey = (("", "TCP", 80, ""),)


def _service(**spec: Any) -> Service:
    fields = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]} | spec
    return Service.of({"metadata": {"name": "web", "namespace": "ns"}, "spec": fields})


def _pod(name: str, *, port: int = 8080, ready: bool = True, terminating: bool = False, **spec: Any) -> Pod:
    meta: Json = {"name": name, "namespace": "ns", "uid": name}
    if terminating:
        meta["deletionTimestamp"] = "2023-11-14T22:00:00Z"
    containers = [{"name": "a", "ports": [{"name": "http", "containerPort": port}]}]
    number = sum(name.encode()) % 250
    status = {
        "phase": spec.pop("phase", "Running"),
        "podIP": spec.pop("ip", f"10.0.0.{number}"),
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    return Pod.of({"metadata": meta, "spec": {"containers": containers, "nodeName": "n1", **spec}, "status": status})


@pytest.mark.parametrize(
    ("pod", "publishes_all", "want"),
    [
        (_pod("a"), False, (True, True, False)),
        (_pod("a", ready=False), False, (False, False, False)),
        (_pod("a", ready=False), True, (True, False, False)),
        (_pod("a", terminating=True), False, (False, True, True)),
        (_pod("a", terminating=True, ready=False), False, (False, False, True)),
        (_pod("a", terminating=True), True, (True, True, True)),
    ],
)
def test_conditions(pod: Pod, publishes_all: bool, want: tuple[bool, bool, bool]) -> None:
    groups = endpoints_of(_service(publishNotReadyAddresses=publishes_all), [pod])
    (endpoint,) = groups[(("", "TCP", 8080, ""),)]
    assert (endpoint.is_ready, endpoint.is_serving, endpoint.is_terminating) == want


def test_pods_without_address_or_finished_are_left_out() -> None:
    assert endpoints_of(_service(), [_pod("a", ip=""), _pod("b", phase="Succeeded")]) == {}


def test_named_ports_may_differ_from_pod_to_pod() -> None:
    groups = endpoints_of(_service(), [_pod("a", port=8080), _pod("b", port=9090), _pod("c", port=8080)])
    assert {ports[0][2]: [m.name for m in members] for ports, members in groups.items()} == {
        8080: ["a", "c"],
        9090: ["b"],
    }


def test_named_port_of_a_native_sidecar_counts() -> None:
    sidecar = {"name": "p", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 15020}]}
    pod = _pod("a", initContainers=[sidecar])
    groups = endpoints_of(_service(ports=[{"port": 1, "targetPort": "admin"}]), [pod])
    assert list(groups) == [(("", "TCP", 15020, ""),)]


def test_pod_that_resolves_no_port_is_left_out() -> None:
    assert endpoints_of(_service(ports=[{"port": 80, "targetPort": "missing"}]), [_pod("a")]) == {}


def test_headless_service_may_have_no_ports() -> None:
    assert list(endpoints_of(_service(clusterIP="None", ports=[]), [_pod("a")])) == [()]


def test_hostname_is_published_under_the_own_subdomain_only() -> None:
    service = _service(ports=[{"port": 80}])
    groups = endpoints_of(
        service, [_pod("a", hostname="db-0", subdomain="web"), _pod("b", hostname="x", subdomain="other")]
    )
    assert [m.hostname for members in groups.values() for m in members] == ["db-0", ""]


def test_legacy_subsets_split_ready_from_not_ready_and_leave_terminating_out() -> None:
    pods = [_pod("a"), _pod("b", ready=False), _pod("c", terminating=True)]
    (subset,) = legacy_subsets(endpoints_of(_service(), pods))
    assert [a["targetRef"]["name"] for a in subset["addresses"]] == ["a"]
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["b"]
    assert subset["ports"] == [{"protocol": "TCP", "port": 8080}]


def test_hand_made_endpoints_are_mirrored() -> None:
    source = Endpoints.of(
        {
            "metadata": {"name": "db", "namespace": "ns"},
            "subsets": [
                {
                    "addresses": [{"ip": "192.0.2.1"}],
                    "notReadyAddresses": [{"ip": "192.0.2.2"}],
                    "ports": [{"name": "sql", "port": 5432}],
                }
            ],
        }
    )
    ((ports, members),) = mirrored(source).items()
    assert ports == (("sql", "TCP", 5432, ""),)
    assert [(m["addresses"][0], m["conditions"]["ready"]) for m in members] == [
        ("192.0.2.1", True),
        ("192.0.2.2", False),
    ]


# -- packing

_OWNER = SliceOwner(
    name="web", namespace="ns", reference={"uid": "u", "kind": "Service"}, managed_by=CONTROLLER, labels={"app": "web"}
)


def _endpoint(number: int, *, ready: bool = True) -> Json:
    return {"addresses": [f"10.0.{number // 250}.{number % 250}"], "conditions": {"ready": ready}}


def _carried_out(decision: SlicePlan, existing: list[Json]) -> list[Json]:
    gone = {item["metadata"]["name"] for item in decision.delete}
    updated = {item["metadata"]["name"]: item for item in decision.update}
    kept = [updated.get(item["metadata"]["name"], item) for item in existing if item["metadata"]["name"] not in gone]
    return [*kept, *decision.create]


def _addresses(slices: list[Json]) -> list[str]:
    return sorted(endpoint["addresses"][0] for item in slices for endpoint in item["endpoints"])


def test_service_without_pods_has_one_empty_slice() -> None:
    first = plan_slices(_OWNER, {}, [], 100)
    assert [item["endpoints"] for item in first.create] == [[]]
    slices = _carried_out(plan_slices(_OWNER, {_HTTP: [_endpoint(1)]}, [], 100), [])
    emptied = _carried_out(plan_slices(_OWNER, {}, slices, 100), slices)
    assert [item["endpoints"] for item in emptied] == [[]]


def test_unchanged_endpoints_write_nothing() -> None:
    wanted = {_HTTP: [_endpoint(n) for n in range(250)]}
    slices = _carried_out(plan_slices(_OWNER, wanted, [], 100), [])
    assert [len(item["endpoints"]) for item in slices] == [100, 100, 50]
    assert plan_slices(_OWNER, wanted, slices, 100) == SlicePlan((), (), ())


def test_one_changed_pod_touches_one_slice() -> None:
    wanted = {_HTTP: [_endpoint(n) for n in range(250)]}
    slices = _carried_out(plan_slices(_OWNER, wanted, [], 100), [])
    wanted[_HTTP][120] = _endpoint(120, ready=False)
    decision = plan_slices(_OWNER, wanted, slices, 100)
    assert (len(decision.create), len(decision.update), len(decision.delete)) == (0, 1, 0)


def test_same_plan_from_an_old_cache_has_the_same_names() -> None:
    wanted = {_HTTP: [_endpoint(n) for n in range(150)]}
    names = [item["metadata"]["name"] for item in plan_slices(_OWNER, wanted, [], 100).create]
    assert names == [item["metadata"]["name"] for item in plan_slices(_OWNER, wanted, [], 100).create]
    assert len(set(names)) == 2


@given(st.lists(st.sets(st.integers(0, 40), max_size=30), min_size=1, max_size=6), st.integers(1, 7))
def test_slices_always_hold_exactly_the_wanted_endpoints(rounds: list[set[int]], limit: int) -> None:
    slices: list[Json] = []
    for members in rounds:
        wanted = {_HTTP: [_endpoint(n) for n in sorted(members)]} if members else {}
        slices = _carried_out(plan_slices(_OWNER, wanted, slices, limit), slices)
        assert _addresses(slices) == sorted(_endpoint(n)["addresses"][0] for n in members)
        assert all(len(item["endpoints"]) <= limit for item in slices)
        assert len({item["metadata"]["name"] for item in slices}) == len(slices)
        assert plan_slices(_OWNER, wanted, slices, limit) == SlicePlan((), (), ())
