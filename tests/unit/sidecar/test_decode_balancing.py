"""What clusters and assignments say about balancing, both ways, becomes values; what is not understood is refused."""

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3 import (
    client_side_weighted_round_robin_pb2,
)
from google.protobuf import json_format

from mesh.balance.config import EwmaConfig, HashingConfig, SlowStartConfig, SubsetConfig, SubsetFallback, SubsetSelector
from mesh.balance.endpoint import Health, LbPolicy, Locality
from mesh.xds.decode_endpoints import decode_assignment
from mesh.xds.errors import DecodeError
from sidecar.config import Cluster
from sidecar.decode.clusters import decode_cluster

pytestmark = pytest.mark.unit

Json = dict[str, Any]
BASE = "type.googleapis.com/envoy.extensions.load_balancing_policies"
ORCA = client_side_weighted_round_robin_pb2.ClientSideWeightedRoundRobin.DESCRIPTOR.full_name


def cluster(**fields: Any) -> Cluster:
    message = json_format.ParseDict({"name": "c", "type": "STATIC", **fields}, cluster_pb2.Cluster())
    return decode_cluster(message, "cluster").cluster


def typed(kind: str, **fields: Any) -> Json:
    config = {"@type": kind if "/" in kind else f"{BASE}.{kind}", **fields}
    return {"policies": [{"typed_extension_config": {"name": kind, "typed_config": config}}]}


SLOW: Json = {
    "slow_start_window": "20s",
    "aggression": {"default_value": 2.0, "runtime_key": "k"},
    "min_weight_percent": {"value": 5},
}
SLOW_VALUE = SlowStartConfig(window_s=20.0, aggression=2.0, min_weight_percent=5.0)


def test_nothing_said_means_envoys_defaults() -> None:
    found = cluster()
    assert (found.lb_policy, found.choice_count, found.panic_threshold_percent) == (LbPolicy.ROUND_ROBIN, 2, 50.0)
    assert (found.balance.slow_start, found.balance.is_locality_weighted, found.balance.subsets) == (None, False, None)
    assert found.balance.hashing == HashingConfig(min_ring_size=1024, max_ring_size=8388608, table_size=65537)


def test_policies_by_name() -> None:
    found = cluster(
        lb_policy="LEAST_REQUEST",
        least_request_lb_config={
            "choice_count": 3,
            "active_request_bias": {"default_value": 0.5, "runtime_key": "k"},
            "slow_start_config": SLOW,
        },
        common_lb_config={"locality_weighted_lb_config": {}},
    )
    assert (found.choice_count, found.balance.active_request_bias, found.balance.slow_start) == (3, 0.5, SLOW_VALUE)
    assert found.balance.is_locality_weighted
    assert cluster(
        round_robin_lb_config={"slow_start_config": {"slow_start_window": "9s"}}
    ).balance.slow_start == SlowStartConfig(window_s=9.0)
    ring = cluster(
        lb_policy="RING_HASH",
        ring_hash_lb_config={"minimum_ring_size": 10, "maximum_ring_size": 100},
        common_lb_config={
            "consistent_hashing_lb_config": {"use_hostname_for_hashing": True, "hash_balance_factor": 130}
        },
    )
    assert ring.lb_policy is LbPolicy.RING_HASH
    assert ring.balance.hashing == HashingConfig(
        min_ring_size=10, max_ring_size=100, uses_hostname=True, balance_factor=130
    )
    assert cluster(lb_policy="MAGLEV", maglev_lb_config={"table_size": 101}).balance.hashing.table_size == 101
    assert cluster(lb_policy="RANDOM").lb_policy is LbPolicy.RANDOM


def test_typed_policies() -> None:
    least = cluster(
        load_balancing_policy=typed(
            "least_request.v3.LeastRequest",
            choice_count=4,
            slow_start_config=SLOW,
            selection_method="FULL_SCAN",
            locality_lb_config={"locality_weighted_lb_config": {}},
        )
    )
    assert (least.lb_policy, least.choice_count, least.balance.is_full_scan) == (LbPolicy.LEAST_REQUEST, 4, True)
    assert (least.balance.slow_start, least.balance.is_locality_weighted) == (SLOW_VALUE, True)
    ring = cluster(
        load_balancing_policy=typed(
            "ring_hash.v3.RingHash",
            minimum_ring_size=7,
            consistent_hashing_lb_config={"hash_balance_factor": 200},
            locality_weighted_lb_config={},
        )
    )
    assert (ring.lb_policy, ring.balance.is_locality_weighted) == (LbPolicy.RING_HASH, True)
    assert (ring.balance.hashing.min_ring_size, ring.balance.hashing.balance_factor) == (7, 200)
    maglev = cluster(
        load_balancing_policy=typed("maglev.v3.Maglev", table_size=11), common_lb_config={"healthy_panic_threshold": {}}
    )
    assert (maglev.lb_policy, maglev.balance.hashing.table_size, maglev.panic_threshold_percent) == (
        LbPolicy.MAGLEV,
        11,
        0,
    )
    inner = typed("random.v3.Random")
    by_zone = cluster(load_balancing_policy=typed("wrr_locality.v3.WrrLocality", endpoint_picking_policy=inner))
    assert (by_zone.lb_policy, by_zone.balance.is_locality_weighted) == (LbPolicy.RANDOM, True)
    divided = cluster(
        load_balancing_policy=typed("subset.v3.Subset", subset_selectors=[{"keys": ["v"]}], subset_lb_policy=inner)
    )
    assert divided.balance.subsets == SubsetConfig(selectors=(SubsetSelector(keys=frozenset({"v"})),))


def test_the_first_known_typed_policy_counts() -> None:
    both = typed(f"type.googleapis.com/{ORCA}")["policies"] + typed("random.v3.Random")["policies"]
    assert cluster(load_balancing_policy={"policies": both}).lb_policy is LbPolicy.RANDOM


def test_subsets() -> None:
    found = cluster(
        lb_subset_config={
            "fallback_policy": "DEFAULT_SUBSET",
            "default_subset": {"stage": "prod"},
            "subset_selectors": [
                {"keys": ["version", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]},
                {"keys": ["version"], "fallback_policy": "ANY_ENDPOINT"},
            ],
            "locality_weight_aware": True,
            "scale_locality_weight": True,
            "panic_mode_any": True,
        }
    )
    assert found.balance.subsets == SubsetConfig(
        selectors=(
            SubsetSelector(
                keys=frozenset({"version", "stage"}),
                fallback=SubsetFallback.KEYS_SUBSET,
                fallback_keys=frozenset({"version"}),
            ),
            SubsetSelector(keys=frozenset({"version"}), fallback=SubsetFallback.ANY_ENDPOINT),
        ),
        fallback=SubsetFallback.DEFAULT_SUBSET,
        default_labels=(("stage", "prod"),),
        is_locality_aware=True,
        scales_locality_weight=True,
        panic_mode_any=True,
    )
    assert cluster(lb_subset_config={"fallback_policy": "ANY_ENDPOINT"}).balance.subsets is None


def test_peak_ewma_comes_by_metadata() -> None:
    said = {"lb": "PEAK_EWMA", "lb_decay_s": 5}
    found = cluster(lb_policy="LEAST_REQUEST", metadata={"filter_metadata": {"meshwork.dev": said}})
    assert (found.lb_policy, found.balance.ewma) == (LbPolicy.PEAK_EWMA, EwmaConfig(decay_s=5.0))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"lb_policy": "CLUSTER_PROVIDED"}, "cluster.lb_policy"),
        ({"ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}, "cluster.ring_hash_lb_config.hash_function"),
        ({"common_lb_config": {"zone_aware_lb_config": {}}}, "cluster.common_lb_config.zone_aware_lb_config"),
        ({"maglev_lb_config": {"table_size": 10}}, "cluster"),
        ({"least_request_lb_config": {"choice_count": 1}}, "cluster.least_request_lb_config.choice_count"),
        ({"round_robin_lb_config": {"slow_start_config": {"slow_start_window": "-1s"}}}, "cluster"),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a"], "single_host_per_subset": True}]}},
            "cluster.lb_subset_config.subset_selectors[0].single_host_per_subset",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "default_subset": {"a": 1}}},
            "cluster.lb_subset_config.default_subset.a",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "list_as_any": True}},
            "cluster.lb_subset_config.list_as_any",
        ),
        ({"load_balancing_policy": typed(f"type.googleapis.com/{ORCA}")}, "cluster.load_balancing_policy.policies"),
        (
            {
                "load_balancing_policy": typed("random.v3.Random"),
                "common_lb_config": {"locality_weighted_lb_config": {}},
            },
            "cluster.common_lb_config.locality_weighted_lb_config",
        ),
        (
            {
                "load_balancing_policy": typed("random.v3.Random"),
                "lb_subset_config": {"subset_selectors": [{"keys": ["a"]}]},
            },
            "cluster.lb_subset_config",
        ),
        (
            {
                "load_balancing_policy": typed(
                    "round_robin.v3.RoundRobin", locality_lb_config={"zone_aware_lb_config": {}}
                )
            },
            "cluster.load_balancing_policy.policies[0].locality_lb_config.zone_aware_lb_config",
        ),
        (
            {"metadata": {"filter_metadata": {"meshwork.dev": {"lb": "BEST"}}}},
            'cluster.metadata.filter_metadata["meshwork.dev"].lb',
        ),
        (
            {"metadata": {"filter_metadata": {"meshwork.dev": {"lb": "PEAK_EWMA", "lb_decay_s": "soon"}}}},
            'cluster.metadata.filter_metadata["meshwork.dev"].lb_decay_s',
        ),
    ],
)
def test_what_is_not_understood_is_named(fields: Json, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        cluster(**fields)
    assert caught.value.path == path


def assignment(*localities: Json, **policy: Any) -> endpoint_pb2.ClusterLoadAssignment:
    document = {"cluster_name": "c", "endpoints": list(localities), "policy": policy}
    return json_format.ParseDict(document, endpoint_pb2.ClusterLoadAssignment())


def locality(**fields: Any) -> Json:
    address = {"socket_address": {"address": "10.0.0.1", "port_value": 80}}
    return {
        "lb_endpoints": [{"endpoint": {"address": address, "hostname": "web-1"}, **fields.pop("endpoint", {})}],
        **fields,
    }


def test_endpoints_know_their_place_and_labels() -> None:
    labels = {"filter_metadata": {"envoy.lb": {"version": "v1", "canary": True, "app": "web"}}}
    found = decode_assignment(
        assignment(
            locality(
                locality={"region": "r", "zone": "z", "sub_zone": "s"},
                load_balancing_weight=7,
                priority=2,
                endpoint={"metadata": labels, "health_status": "DEGRADED"},
            ),
            overprovisioning_factor=200,
        ),
        "a",
    )
    (one,) = found.endpoints
    assert (one.locality, str(one.locality), one.locality_weight, one.priority) == (
        Locality("r", "z", "s"),
        "r/z/s",
        7,
        2,
    )
    assert (one.labels, one.hostname, one.health) == ((("app", "web"), ("version", "v1")), "web-1", Health.DEGRADED)
    assert found.overprovisioning_percent == 200


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (assignment(locality(priority=129)), "a.endpoints[0].priority"),
        (assignment(overprovisioning_factor=50), "a.policy.overprovisioning_factor"),
        (assignment(drop_overloads=[{"category": "x"}]), "a.policy.drop_overloads"),
        (assignment(locality(leds_cluster_locality_config={})), "a.endpoints[0].leds_cluster_locality_config"),
    ],
)
def test_assignments_out_of_bounds_are_refused(document: endpoint_pb2.ClusterLoadAssignment, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_assignment(document, "a")
    assert caught.value.path == path
