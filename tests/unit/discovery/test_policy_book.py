"""Which policies are in force, and what their status says."""

import random
from dataclasses import replace

import pytest

from controlplane.discovery.drains import DrainTracker
from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.policy_status import PolicyStatusTracker
from controlplane.discovery.proxies import ConnectedProxy, ProxyIdentity, ProxyRegistry
from controlplane.discovery.snapshot import Scope, Snapshot
from controlplane.discovery.status_text import says_the_same
from controlplane.discovery.stream import StreamState
from controlplane.discovery.verdicts import PolicyId, Verdict
from mesh.api.meta import Condition
from mesh.api.resources import DESTINATION_RULES, VIRTUAL_SERVICES, Json
from mesh.clock import ManualClock
from tests.unit.discovery.small_mesh import Built, put_pod, put_routes, put_rule, small_world, to

pytestmark = pytest.mark.unit

ROUTES = PolicyId(VIRTUAL_SERVICES, "shop", "web")
RULE = PolicyId(DESTINATION_RULES, "shop", "web")


def settled(built: Built) -> dict[PolicyId, Verdict]:
    built.build()
    return dict(built.builder.policies.verdicts)


def test_good_policies_are_accepted() -> None:
    verdicts = settled(Built(small_world()))
    assert {policy.resource.kind: v.is_accepted for policy, v in verdicts.items()} == {
        "VirtualService": True,
        "DestinationRule": True,
    }


def test_the_last_good_version_stays_in_force() -> None:
    built = Built(small_world())
    settled(built)
    put_routes(built.world, {"route": [to("v1", 50), to("v2", 40)]}, generation=2)
    verdict = settled(built)[ROUTES]
    assert (verdict.generation, verdict.is_accepted, verdict.reason) == (2, False, "Invalid")
    assert verdict.message == (
        "VirtualService shop/web (web.yaml:14): spec.http[0].route: weights sum to 90, want 100."
        " Generation 1 stays in force."
    )
    assert [service.generation for service in built.builder.policies.virtual_services] == [1]


def test_a_policy_that_was_never_good_is_not_in_force() -> None:
    world = small_world()
    put_routes(world, {"route": [to(host="gone")]})
    built = Built(world)
    assert "is not in force" in settled(built)[ROUTES].message
    assert built.builder.policies.virtual_services == ()


def test_a_missing_subset_heals_when_it_appears() -> None:
    world = small_world()
    put_routes(world, {"route": [to("v3")]})
    built = Built(world)
    assert not settled(built)[ROUTES].is_accepted
    put_rule(world, generation=2, subsets=[{"name": "v3", "labels": {"version": "v3"}}])
    assert settled(built)[ROUTES].is_accepted


def test_the_older_of_two_rivals_wins() -> None:
    world = small_world()
    put_routes(world, {"route": [to()]}, name="newer", created="2")
    built = Built(world)
    verdicts = settled(built)
    newer = verdicts[PolicyId(VIRTUAL_SERVICES, "shop", "newer")]
    assert (newer.is_accepted, newer.reason) == (False, "Conflict")
    assert "already belongs to VirtualService shop/web (web.yaml:14)" in newer.message
    assert verdicts[ROUTES].is_accepted
    world.put_virtual_service(("shop", "web"), None)
    assert settled(built)[PolicyId(VIRTUAL_SERVICES, "shop", "newer")].is_accepted


def test_rivals_in_different_namespaces_do_not_meet() -> None:
    world = small_world()
    put_routes(world, {"route": [to("v1")]}, exportTo=["."])
    put_routes(world, {"route": [to()]}, name="rest", created="2", exportTo=["other"])
    assert all(verdict.is_accepted for verdict in settled(Built(world)).values())


class Fleet:
    """Proxies that answer when told to."""

    def __init__(self, *pods: str) -> None:
        self.registry = ProxyRegistry()
        self.proxies = {pod: self._proxy(pod) for pod in pods}
        for proxy in self.proxies.values():
            self.registry.add(proxy)

    def _proxy(self, pod: str) -> ConnectedProxy:
        identity = ProxyIdentity(
            node_id=pod,
            address="",
            namespace="shop",
            pod=pod,
            labels={},
            node="",
            version="",
            kind="meshwork",
            intercepts=True,
        )
        return ConnectedProxy(identity, StreamState(is_delta=True), Scope(namespace="shop"))

    def answer(self, pod: str, serial: int) -> None:
        self.proxies[pod].shown_serial = self.proxies[pod].settled_serial = serial


class Statuses:
    """A tracker with one policy."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.clock = ManualClock()
        self.verdict = Verdict(generation=4, is_accepted=True, reason="Accepted", message="")
        self.changed: list[tuple[PolicyId, float]] = []
        self.absent: tuple[tuple[str, str], ...] = ()
        self.tracker = PolicyStatusTracker(
            fleet.registry,
            lambda: [(ROUTES, self.verdict)],
            lambda policy, in_s: self.changed.append((policy, in_s)),
            self.clock,
            delay_s=1.0,
            absent=lambda: self.absent,
        )

    def conditions(self, current: tuple[Condition, ...] = ()) -> dict[str, Json] | None:
        desired = self.tracker.desired(ROUTES, current, "now")
        return {c["type"]: c for c in desired["conditions"]} if desired is not None else None

    def programmed(self) -> tuple[str, str] | None:
        found = self.conditions()
        return (found["Programmed"]["status"], found["Programmed"]["reason"]) if found is not None else None


def test_programmed_when_the_last_proxy_has_answered() -> None:
    statuses = Statuses(Fleet("a", "b"))
    statuses.tracker.on_published(Snapshot(serial=7))
    statuses.fleet.answer("a", 7)
    statuses.tracker.on_progress()
    assert statuses.programmed() is None
    statuses.fleet.answer("b", 8)
    statuses.tracker.on_progress()
    assert statuses.changed[-1] == (ROUTES, 0.0)
    found = statuses.conditions()
    assert found is not None
    assert (found["Programmed"]["status"], found["Programmed"]["observedGeneration"]) == ("True", 4)
    assert found["Accepted"]["status"] == "True"


def test_a_sidecar_that_has_not_connected_yet_counts_as_behind() -> None:
    statuses = Statuses(Fleet("a"))
    statuses.absent = (("shop", "b"),)
    statuses.tracker.on_published(Snapshot(serial=7))
    statuses.fleet.answer("a", 7)
    statuses.tracker.on_progress()
    assert statuses.programmed() is None
    statuses.clock.advance(1.0)
    found = statuses.conditions()
    assert found is not None
    assert found["Programmed"]["message"] == "waiting for 1 of 1 proxies: b.shop (not connected)"
    statuses.absent = ()
    statuses.tracker.on_progress()
    assert statuses.programmed() == ("True", "Programmed")


def test_a_slow_proxy_is_named_after_a_while() -> None:
    statuses = Statuses(Fleet("a", "b"))
    statuses.tracker.on_published(Snapshot(serial=7))
    statuses.fleet.answer("a", 7)
    assert statuses.changed == [(ROUTES, 1.0)]
    statuses.clock.advance(1.0)
    found = statuses.conditions()
    assert found is not None
    assert found["Programmed"]["message"] == "waiting for 1 of 2 proxies: b.shop"


def test_a_refusal_is_told_and_forgotten_when_the_proxy_recovers_or_leaves() -> None:
    statuses = Statuses(Fleet("a"))
    proxy = statuses.fleet.proxies["a"]
    statuses.tracker.on_published(Snapshot(serial=7))
    proxy.shown_serial = 7
    next(iter(proxy.state.types.values())).error = "bad route"
    statuses.tracker.on_refused(proxy, 6, "bad route")
    statuses.fleet.answer("a", 7)
    statuses.tracker.on_progress()
    assert statuses.programmed() == ("False", "Refused")
    statuses.fleet.registry.remove(proxy)
    statuses.tracker.on_progress()
    assert statuses.programmed() == ("True", "Programmed")


def test_policies_before_a_refused_push_are_not_blamed() -> None:
    statuses = Statuses(Fleet("a"))
    proxy = statuses.fleet.proxies["a"]
    statuses.tracker.on_published(Snapshot(serial=7))
    statuses.fleet.answer("a", 7)
    proxy.shown_serial = 8
    statuses.tracker.on_refused(proxy, 7, "bad route")
    assert statuses.programmed() == ("True", "Programmed")


def test_an_invalid_policy_is_told_at_once() -> None:
    statuses = Statuses(Fleet("a"))
    statuses.verdict = replace(statuses.verdict, is_accepted=False, reason="Invalid", message="why")
    statuses.tracker.on_published(Snapshot(serial=7))
    assert statuses.programmed() == ("False", "NotAccepted")
    found = statuses.conditions()
    assert found is not None
    assert found["Accepted"]["message"] == "why"


def test_transition_times_stay_while_the_status_stays() -> None:
    statuses = Statuses(Fleet())
    statuses.tracker.on_published(Snapshot(serial=7))
    desired = statuses.tracker.desired(ROUTES, (), "then")
    assert desired is not None
    current = tuple(Condition.of(c) for c in desired["conditions"])
    assert says_the_same(desired, current)
    later = statuses.tracker.desired(ROUTES, current, "later")
    assert later == desired


class Drains:
    """A tracker over the small mesh."""

    def __init__(self, fleet: Fleet) -> None:
        self.built = Built(small_world())
        self.fleet = fleet
        self.told: list[ObjectKey] = []
        self.tracker = DrainTracker(self.built.world, fleet.registry, self.told.append)
        self.publish()

    def publish(self) -> int:
        self.built.build()
        self.tracker.on_published(self.built.snapshot)
        return self.built.snapshot.serial

    def leave(self, pod: str, app: str = "web") -> int:
        put_pod(self.built.world, pod, app, leaving=True)
        serial = self.publish()
        self.tracker.pod_changed(("shop", pod))
        return serial


def test_a_pod_is_drained_when_every_other_proxy_has_answered() -> None:
    drains = Drains(Fleet("a", "b", "web-1"))
    serial = drains.leave("web-1")
    order = ["a", "b"]
    random.Random(1).shuffle(order)
    for pod in order:
        assert drains.told == []
        drains.fleet.answer(pod, serial)
        drains.tracker.on_progress()
    assert drains.told == [("shop", "web-1")]


def test_a_pod_nobody_uses_is_drained_at_once() -> None:
    drains = Drains(Fleet("a"))
    drains.leave("job-1", app="job")
    assert drains.told == [("shop", "job-1")]


def test_a_proxy_that_goes_away_is_not_waited_for() -> None:
    drains = Drains(Fleet("a"))
    drains.leave("web-2")
    drains.fleet.registry.remove(drains.fleet.proxies["a"])
    drains.tracker.on_progress()
    assert drains.told == [("shop", "web-2")]
