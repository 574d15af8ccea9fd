"""TrafficLimits at the inbound listeners of the pods they select."""

from typing import Any

import pytest

from controlplane.discovery.snapshot import Scope
from controlplane.discovery.verdicts import PolicyId
from controlplane.discovery.world import World
from mesh.api.resources import TRAFFIC_LIMITS, Json
from mesh.api.traffic_limit import TrafficLimit
from sidecar.config import HttpFilter
from tests.unit.discovery.protos import managers
from tests.unit.discovery.small_mesh import Built, as_sidecar_sees, put_service, small_world

pytestmark = pytest.mark.unit

RATE: Json = {"maxTokens": 7, "fillInterval": "2s"}


def put_limit(world: World, name: str = "web", created: str = "1", **spec: Any) -> None:
    meta = {"name": name, "namespace": "shop", "generation": 1, "creationTimestamp": created}
    world.put_traffic_limit(("shop", name), TrafficLimit.of({"metadata": meta, "spec": spec}))


def scope_of(built: Built, pod: str) -> Scope:
    built.builder.settle_policies()
    facts = built.world.pods["shop", pod]
    return built.builder.scope_of("shop", dict(facts.labels), facts, intercepts=True)


def filters(built: Built, pod: str) -> list[list[str]]:
    """The names of each inbound manager's filters."""
    found = managers(built.build(scope_of(built, pod)), "virtualInbound")
    return [[f.name.removeprefix("envoy.filters.http.") for f in manager.http_filters] for manager in found]


def test_only_selected_pods_are_limited() -> None:
    world = small_world()
    put_limit(world, selector={"matchLabels": {"version": "v1"}}, localRateLimit=RATE, adaptiveConcurrency={})
    built = Built(world)
    usual = ["fault", "cors", "stateful_session", "router"]
    assert filters(built, "web-1") == [["local_ratelimit", "adaptive_concurrency", *usual]]
    assert filters(built, "web-2") == [usual]


def test_the_sidecar_takes_them() -> None:
    world = small_world()
    put_limit(world, localRateLimit=RATE, adaptiveConcurrency={"minConcurrency": 5})
    built = Built(world)
    snapshot = as_sidecar_sees(built.build(scope_of(built, "web-1")))
    inbound = next(listener for listener in snapshot.listeners if listener.name == "virtualInbound")
    found = inbound.chains[0].filter
    assert isinstance(found, HttpFilter)
    assert found.adaptive is not None
    assert found.adaptive.config.min_limit == 5
    assert found.settings.rate_limit is not None
    assert found.settings.rate_limit.bucket is not None
    assert found.settings.rate_limit.bucket.max_tokens == 7


def test_one_port_of_several() -> None:
    world = small_world()
    ports = {"name": "http-a", "port": 80, "targetPort": 8080}, {"name": "http-b", "port": 81, "targetPort": 8081}
    put_service(world, "web", "10.96.0.10", *ports)
    put_limit(world, port=8081, localRateLimit=RATE)
    first, second = filters(Built(world), "web-1")
    assert "local_ratelimit" not in first
    assert second[0] == "local_ratelimit"


def test_of_two_limits_the_older_counts_and_the_hidden_one_is_told() -> None:
    world = small_world()
    put_limit(world, "old", "1", localRateLimit=RATE)
    put_limit(world, "young", "2", localRateLimit={**RATE, "maxTokens": 1})
    built = Built(world)
    (limits,) = scope_of(built, "web-1").limits
    assert limits.rate is not None
    assert (limits.rate_name, limits.rate.bucket.max_tokens) == ("shop.old", 7)
    verdict = built.builder.policies.verdicts[PolicyId(TRAFFIC_LIMITS, "shop", "young")]
    assert (verdict.reason, verdict.is_accepted) == ("Conflict", False)
    assert "TrafficLimit shop/old is older" in verdict.message
