"""The load balancing part of envoy.config.cluster.v3.Cluster -> policy and BalanceOptions. Pure.

Both ways to say it are read: `lb_policy` with its configurations, and typed policies under `load_balancing_policy`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from envoy.extensions.load_balancing_policies.random.v3 import random_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.load_balancing_policies.subset.v3 import subset_pb2
from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2

from mesh.balance.config import (
    DEFAULT_OPTIONS,
    MAX_RING_SIZE,
    BalanceOptions,
    EwmaConfig,
    HashingConfig,
    SlowStartConfig,
)
from mesh.balance.endpoint import LbPolicy
from mesh.balance.errors import BalanceConfigError
from mesh.xds.errors import DecodeError
from mesh.xds.message import METADATA_KEY, join, metadata, only, seconds, unpack, wrapped
from sidecar.decode.subsets import decode_subsets

_Type: Final = cluster_pb2.Cluster
_POLICIES: Final = {
    _Type.ROUND_ROBIN: LbPolicy.ROUND_ROBIN,
    _Type.LEAST_REQUEST: LbPolicy.LEAST_REQUEST,
    _Type.RING_HASH: LbPolicy.RING_HASH,
    _Type.RANDOM: LbPolicy.RANDOM,
    _Type.MAGLEV: LbPolicy.MAGLEV,
    _Type.CLUSTER_PROVIDED: LbPolicy.ROUND_ROBIN,  # only for ORIGINAL_DST, which has no choice
}
_XX_HASH: Final = 0
"""RingHashLbConfig.XX_HASH."""
_DEFAULT_OR_XX_HASH: Final = (0, 1)
"""RingHash.DEFAULT_HASH and XX_HASH."""
_FULL_SCAN: Final = 1
"""LeastRequest.FULL_SCAN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """What a cluster says about load balancing."""

    policy: LbPolicy = LbPolicy.ROUND_ROBIN
    choices: int = 2
    panic_threshold_percent: float = 50.0
    options: BalanceOptions = DEFAULT_OPTIONS


def decode_balancing(cluster: Any, path: str) -> Balancing:
    """Raises DecodeError."""
    try:
        found = _typed(cluster, path) if cluster.load_balancing_policy.policies else _by_name(cluster, path)
        return _with_peak_ewma(found, cluster, path)
    except BalanceConfigError as exc:
        raise DecodeError(path, str(exc)) from exc


def _with_peak_ewma(found: Balancing, cluster: Any, path: str) -> Balancing:
    """`lb: PEAK_EWMA` in our own metadata: a policy that Envoy does not have, and passes over."""
    said = metadata(cluster)
    if "lb" not in said:
        return found
    where = join(path, f'metadata.filter_metadata["{METADATA_KEY}"]')
    if said["lb"] != "PEAK_EWMA":
        raise DecodeError(join(where, "lb"), f'is "{said["lb"]}"; want PEAK_EWMA or nothing')
    given: dict[str, float] = {}
    for name in ("decay_s", "default_rtt_s", "penalty_s"):
        value = said.get(f"lb_{name}")
        if isinstance(value, float):
            given[name] = value
        elif value is not None:
            raise DecodeError(join(where, f"lb_{name}"), f'is "{value}"; want a number of seconds')
    options = dataclasses.replace(found.options, ewma=EwmaConfig(**given))
    return dataclasses.replace(found, policy=LbPolicy.PEAK_EWMA, options=options)


# -- lb_policy


def _by_name(cluster: Any, path: str) -> Balancing:
    if cluster.lb_policy not in _POLICIES or (
        cluster.lb_policy == _Type.CLUSTER_PROVIDED and cluster.type != _Type.ORIGINAL_DST
    ):
        name = _Type.LbPolicy.Name(cluster.lb_policy)
        raise DecodeError(join(path, "lb_policy"), f"{name} is not supported for this type of cluster")
    policy = _POLICIES[cluster.lb_policy]
    common, where = cluster.common_lb_config, join(path, "common_lb_config")
    only(
        common,
        where,
        "healthy_panic_threshold",
        "update_merge_window",
        "ignore_new_hosts_until_first_hc",
        "locality_weighted_lb_config",
        "consistent_hashing_lb_config",
    )
    least, where_least = cluster.least_request_lb_config, join(path, "least_request_lb_config")
    only(least, where_least, "choice_count", "active_request_bias", "slow_start_config")
    robin, where_robin = cluster.round_robin_lb_config, join(path, "round_robin_lb_config")
    only(robin, where_robin, "slow_start_config")
    slow_start = None
    if policy is LbPolicy.LEAST_REQUEST:
        slow_start = _slow_start(least, where_least)
    elif policy is LbPolicy.ROUND_ROBIN:
        slow_start = _slow_start(robin, where_robin)
    subsets, where_subsets = cluster.lb_subset_config, join(path, "lb_subset_config")
    return Balancing(
        policy=policy,
        choices=_choices(least, where_least),
        panic_threshold_percent=_panic_threshold(common),
        options=BalanceOptions(
            active_request_bias=_bias(least),
            slow_start=slow_start,
            hashing=_hashing(cluster, path),
            is_locality_weighted=common.HasField("locality_weighted_lb_config"),
            subsets=decode_subsets(subsets, where_subsets) if subsets.subset_selectors else None,
        ),
    )


def _panic_threshold(common: Any) -> float:
    return float(common.healthy_panic_threshold.value) if common.HasField("healthy_panic_threshold") else 50.0


def _choices(least: Any, path: str) -> int:
    choices = wrapped(least, "choice_count", 2)
    if choices < 2:
        raise DecodeError(join(path, "choice_count"), f"is {choices}, want >= 2")
    return choices


def _bias(least: Any) -> float:
    """The runtime key is of no use here: there is no runtime to look it up in."""
    return float(least.active_request_bias.default_value) if least.HasField("active_request_bias") else 1.0


def _slow_start(config: Any, path: str) -> SlowStartConfig | None:
    if not config.HasField("slow_start_config"):
        return None
    found = config.slow_start_config
    only(found, join(path, "slow_start_config"), "slow_start_window", "aggression", "min_weight_percent")
    window_s = seconds(found, "slow_start_window")
    if not window_s:
        return None
    return SlowStartConfig(
        window_s=window_s,
        aggression=float(found.aggression.default_value) if found.HasField("aggression") else 1.0,
        min_weight_percent=float(found.min_weight_percent.value) if found.HasField("min_weight_percent") else 10.0,
    )


def _hashing(cluster: Any, path: str) -> HashingConfig:
    ring, where = cluster.ring_hash_lb_config, join(path, "ring_hash_lb_config")
    only(ring, where, "minimum_ring_size", "maximum_ring_size", "hash_function")
    if ring.hash_function != _XX_HASH:
        raise DecodeError(join(where, "hash_function"), "MURMUR_HASH_2 is not supported; want XX_HASH")
    only(cluster.maglev_lb_config, join(path, "maglev_lb_config"), "table_size")
    consistent, where = cluster.common_lb_config.consistent_hashing_lb_config, join(path, "common_lb_config")
    only(consistent, join(where, "consistent_hashing_lb_config"), "use_hostname_for_hashing", "hash_balance_factor")
    return HashingConfig(
        min_ring_size=wrapped(ring, "minimum_ring_size", 1024),
        max_ring_size=wrapped(ring, "maximum_ring_size", MAX_RING_SIZE),
        table_size=wrapped(cluster.maglev_lb_config, "table_size", 65537),
        uses_hostname=consistent.use_hostname_for_hashing,
        balance_factor=wrapped(consistent, "hash_balance_factor", 0),
    )


# -- typed policies


def _typed(cluster: Any, path: str) -> Balancing:
    """The first known one of the list counts."""
    common, where = cluster.common_lb_config, join(path, "common_lb_config")
    # What else could stand here belongs into the typed policy; Envoy refuses it too.
    only(common, where, "healthy_panic_threshold", "update_merge_window", "ignore_new_hosts_until_first_hc")
    if cluster.HasField("lb_subset_config"):
        raise DecodeError(join(path, "lb_subset_config"), "cannot be combined with load_balancing_policy")
    found = _first_known(cluster.load_balancing_policy, join(path, "load_balancing_policy"))
    return dataclasses.replace(found, panic_threshold_percent=_panic_threshold(common))


def _first_known(policy: Any, path: str) -> Balancing:
    names = []
    for i, one in enumerate(policy.policies):
        typed, where = one.typed_extension_config.typed_config, f"{join(path, 'policies')}[{i}]"
        names.append(typed.type_url.rpartition("/")[2])
        if names[-1] in _TYPED:
            make, decode = _TYPED[names[-1]]
            _, message = unpack(typed, where, {names[-1]: make})
            return decode(message, where)
    known = ", ".join(sorted(_TYPED))
    raise DecodeError(join(path, "policies"), f"none of {', '.join(names)} is supported; known: {known}")


def _locality_weighted(message: Any, path: str) -> bool:
    config, where = message.locality_lb_config, join(path, "locality_lb_config")
    only(config, where, "locality_weighted_lb_config")
    return bool(config.HasField("locality_weighted_lb_config"))


def _round_robin(message: Any, path: str) -> Balancing:
    only(message, path, "slow_start_config", "locality_lb_config")
    options = BalanceOptions(
        slow_start=_slow_start(message, path), is_locality_weighted=_locality_weighted(message, path)
    )
    return Balancing(policy=LbPolicy.ROUND_ROBIN, options=options)


def _least_request(message: Any, path: str) -> Balancing:
    only(
        message,
        path,
        "choice_count",
        "active_request_bias",
        "slow_start_config",
        "locality_lb_config",
        "enable_full_scan",
        "selection_method",
    )
    options = BalanceOptions(
        active_request_bias=_bias(message),
        is_full_scan=message.selection_method == _FULL_SCAN or wrapped(message, "enable_full_scan", False),
        slow_start=_slow_start(message, path),
        is_locality_weighted=_locality_weighted(message, path),
    )
    return Balancing(policy=LbPolicy.LEAST_REQUEST, choices=_choices(message, path), options=options)


def _random(message: Any, path: str) -> Balancing:
    only(message, path, "locality_lb_config")
    options = BalanceOptions(is_locality_weighted=_locality_weighted(message, path))
    return Balancing(policy=LbPolicy.RANDOM, options=options)


def _ring_hash(message: Any, path: str) -> Balancing:
    only(
        message,
        path,
        "hash_function",
        "minimum_ring_size",
        "maximum_ring_size",
        "use_hostname_for_hashing",
        "hash_balance_factor",
        "consistent_hashing_lb_config",
        "locality_weighted_lb_config",
    )
    if message.hash_function not in _DEFAULT_OR_XX_HASH:
        raise DecodeError(join(path, "hash_function"), "MURMUR_HASH_2 is not supported; want XX_HASH")
    uses_hostname, balance_factor = _consistent(message, path)
    hashing = HashingConfig(
        min_ring_size=wrapped(message, "minimum_ring_size", 1024),
        max_ring_size=wrapped(message, "maximum_ring_size", MAX_RING_SIZE),
        uses_hostname=uses_hostname or message.use_hostname_for_hashing,
        balance_factor=balance_factor or wrapped(message, "hash_balance_factor", 0),
    )
    weighted = message.HasField("locality_weighted_lb_config")
    return Balancing(policy=LbPolicy.RING_HASH, options=BalanceOptions(hashing=hashing, is_locality_weighted=weighted))


def _maglev(message: Any, path: str) -> Balancing:
    only(message, path, "table_size", "consistent_hashing_lb_config", "locality_weighted_lb_config")
    uses_hostname, balance_factor = _consistent(message, path)
    hashing = HashingConfig(
        table_size=wrapped(message, "table_size", 65537), uses_hostname=uses_hostname, balance_factor=balance_factor
    )
    weighted = message.HasField("locality_weighted_lb_config")
    return Balancing(policy=LbPolicy.MAGLEV, options=BalanceOptions(hashing=hashing, is_locality_weighted=weighted))


def _consistent(message: Any, path: str) -> tuple[bool, int]:
    config = message.consistent_hashing_lb_config
    only(config, join(path, "consistent_hashing_lb_config"), "use_hostname_for_hashing", "hash_balance_factor")
    return config.use_hostname_for_hashing, wrapped(config, "hash_balance_factor", 0)


def _wrr_locality(message: Any, path: str) -> Balancing:
    """Localities by their weights, within them by another policy."""
    only(message, path, "endpoint_picking_policy")
    found = _first_known(message.endpoint_picking_policy, join(path, "endpoint_picking_policy"))
    return dataclasses.replace(found, options=dataclasses.replace(found.options, is_locality_weighted=True))


def _subset(message: Any, path: str) -> Balancing:
    found = _first_known(message.subset_lb_policy, join(path, "subset_lb_policy"))
    subsets = decode_subsets(message, path, "subset_lb_policy")
    return dataclasses.replace(found, options=dataclasses.replace(found.options, subsets=subsets))


_BASE: Final = "envoy.extensions.load_balancing_policies"
_TYPED: Final[dict[str, tuple[Callable[[], Any], Callable[[Any, str], Balancing]]]] = {
    f"{_BASE}.round_robin.v3.RoundRobin": (round_robin_pb2.RoundRobin, _round_robin),
    f"{_BASE}.least_request.v3.LeastRequest": (least_request_pb2.LeastRequest, _least_request),
    f"{_BASE}.random.v3.Random": (random_pb2.Random, _random),
    f"{_BASE}.ring_hash.v3.RingHash": (ring_hash_pb2.RingHash, _ring_hash),
    f"{_BASE}.maglev.v3.Maglev": (maglev_pb2.Maglev, _maglev),
    f"{_BASE}.wrr_locality.v3.WrrLocality": (wrr_locality_pb2.WrrLocality, _wrr_locality),
    f"{_BASE}.subset.v3.Subset": (subset_pb2.Subset, _subset),
}
