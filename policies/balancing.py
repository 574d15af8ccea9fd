"""loadBalancer of a trafficPolicy: the algorithm, its key, slow start, and what the client's place decides."""

from dataclasses import dataclass

from mesh.api.selectors import is_label_key, is_label_value
from mesh.api.traffic_policy import ConsistentHash, LoadBalancerSettings, LocalityLbSetting, Warmup
from policies.checks import Findings
from policies.headers import check_header_name
from policies.traffic import HashKey, HashSource, LoadBalancing, LocalityBalancing, LocalityShares, SlowStart

MAX_RING_SIZE = 8 * 1024 * 1024
"""Source: Envoy RingHashLbConfig.maximum_ring_size."""
MAX_MAGLEV_SIZE = 5_000_011
"""Source: Envoy MaglevLbConfig.table_size."""
_SIMPLE = {
    "": LoadBalancing.LEAST_REQUEST,
    "UNSPECIFIED": LoadBalancing.LEAST_REQUEST,
    "LEAST_CONN": LoadBalancing.LEAST_REQUEST,
    "LEAST_REQUEST": LoadBalancing.LEAST_REQUEST,
    "ROUND_ROBIN": LoadBalancing.ROUND_ROBIN,
    "RANDOM": LoadBalancing.RANDOM,
}
_CAN_START_SLOWLY = (LoadBalancing.LEAST_REQUEST, LoadBalancing.ROUND_ROBIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """What `loadBalancer` says."""

    algorithm: LoadBalancing = LoadBalancing.LEAST_REQUEST
    hash_key: HashKey | None = None
    table_size: int = 0
    slow_start: SlowStart | None = None
    locality: LocalityBalancing | None = None


def compile_balancing(path: str, settings: LoadBalancerSettings | None, findings: Findings) -> Balancing:
    """The defaults when there is none."""
    if settings is None:
        return Balancing()
    locality = _locality(f"{path}.localityLbSetting", settings.locality_lb_setting, findings)
    slow_start = _slow_start(path, settings, findings)
    if settings.consistent_hash is not None:
        if settings.simple:
            findings.invalid(f"{path}.simple", "consistentHash is given already: remove one of them")
        if slow_start is not None:
            findings.invalid(f"{path}.warmup", "a hash decides by the key alone: use ROUND_ROBIN or LEAST_REQUEST")
        algorithm, key, size = _hash(f"{path}.consistentHash", settings.consistent_hash, findings)
        return Balancing(algorithm=algorithm, hash_key=key, table_size=size, locality=locality)
    algorithm = _simple(f"{path}.simple", settings.simple, findings)
    if slow_start is not None and algorithm not in _CAN_START_SLOWLY:
        findings.invalid(f"{path}.warmup", f"{algorithm.value} has no weights: use ROUND_ROBIN or LEAST_REQUEST")
    return Balancing(algorithm=algorithm, slow_start=slow_start, locality=locality)


def _simple(path: str, name: str, findings: Findings) -> LoadBalancing:
    chosen = _SIMPLE.get(name)
    if chosen is not None:
        return chosen
    if name == "PASSTHROUGH":
        findings.unsupported(path, "PASSTHROUGH is not supported: clients that want one pod address the pod itself")
    else:
        findings.unsupported(path, f'"{name}" is not known: use LEAST_REQUEST, ROUND_ROBIN or RANDOM')
    return LoadBalancing.LEAST_REQUEST


def _hash(path: str, wanted: ConsistentHash, findings: Findings) -> tuple[LoadBalancing, HashKey, int]:
    keys = [
        HashKey(source=source, name=name)
        for source, name in (
            (HashSource.HEADER, wanted.http_header_name),
            (HashSource.QUERY, wanted.http_query_parameter_name),
        )
        if name
    ]
    if wanted.http_header_name:
        check_header_name(f"{path}.httpHeaderName", wanted.http_header_name, findings)
    if wanted.http_cookie is not None:
        keys.append(_cookie(f"{path}.httpCookie", wanted, findings))
    if wanted.use_source_ip:
        keys.append(HashKey(source=HashSource.SOURCE_IP))
    if len(keys) != 1:
        problem = "has no key" if not keys else f"has {len(keys)} keys"
        advice = "give one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName"
        findings.invalid(path, f"{problem}: {advice}")
    algorithm, size = _table(path, wanted, findings)
    return algorithm, keys[0] if keys else HashKey(source=HashSource.SOURCE_IP), size


def _cookie(path: str, wanted: ConsistentHash, findings: Findings) -> HashKey:
    cookie = wanted.http_cookie
    assert cookie is not None  # the caller's case
    if not cookie.name:
        findings.required(f"{path}.name", "name the cookie")
    ttl = findings.duration(f"{path}.ttl", cookie.ttl or "", zero=True)
    return HashKey(source=HashSource.COOKIE, name=cookie.name, path=cookie.path, ttl_s=ttl)


def _table(path: str, wanted: ConsistentHash, findings: Findings) -> tuple[LoadBalancing, int]:
    if wanted.maglev is not None:
        if wanted.ring_hash is not None or wanted.minimum_ring_size is not None:
            findings.invalid(f"{path}.maglev", "a ring is given already: remove one of them")
        size = wanted.maglev.table_size
        if size is None:
            return LoadBalancing.MAGLEV, 0
        findings.between(f"{path}.maglev.tableSize", size, 2, MAX_MAGLEV_SIZE)
        if 2 <= size <= MAX_MAGLEV_SIZE and not _is_prime(size):
            findings.invalid(f"{path}.maglev.tableSize", f"{size} is not a prime, such as 65537")
        return LoadBalancing.MAGLEV, size
    ring = wanted.ring_hash.minimum_ring_size if wanted.ring_hash is not None else None
    if ring is not None and wanted.minimum_ring_size is not None:
        findings.invalid(f"{path}.minimumRingSize", "ringHash says it already: remove this one")
    field = "minimumRingSize" if ring is None else "ringHash.minimumRingSize"
    size = wanted.minimum_ring_size if ring is None else ring
    if size is not None:
        findings.between(f"{path}.{field}", size, 1, MAX_RING_SIZE)
    return LoadBalancing.RING_HASH, size or 0


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _slow_start(path: str, settings: LoadBalancerSettings, findings: Findings) -> SlowStart | None:
    warmup = settings.warmup
    if settings.warmup_duration_secs:
        if warmup is not None:
            findings.invalid(f"{path}.warmupDurationSecs", "warmup says it already: remove this one")
        warmup, path = Warmup(duration=settings.warmup_duration_secs), f"{path}.warmupDurationSecs"
    elif warmup is not None:
        path = f"{path}.warmup"
        if not warmup.duration:
            findings.required(f"{path}.duration", "say how long a new endpoint gets less, such as 30s")
    if warmup is None:
        return None
    window = findings.duration(path, warmup.duration)
    default = SlowStart(window_s=window or 0.0)
    aggression = default.aggression if warmup.aggression is None else warmup.aggression
    if aggression < 1:
        findings.invalid(f"{path}.aggression", f"{aggression:g} is below 1")
    least = default.min_percent if warmup.minimum_percent is None else warmup.minimum_percent
    least = findings.percent(f"{path}.minimumPercent", least)
    return SlowStart(window_s=window or 0.0, min_percent=least, aggression=aggression)


def _locality(path: str, setting: LocalityLbSetting | None, findings: Findings) -> LocalityBalancing | None:
    if setting is None:
        return None
    lists = {
        "distribute": setting.distribute,
        "failover": setting.failover,
        "failoverPriority": setting.failover_priority,
    }
    given = [name for name, value in lists.items() if value]
    if len(given) > 1:
        findings.invalid(path, f"has {' and '.join(given)}: give only one of them")
    compiled = LocalityBalancing(
        distribute=_distribute(f"{path}.distribute", setting, findings),
        failover=_failover(f"{path}.failover", setting, findings),
        priority_labels=_priority_labels(f"{path}.failoverPriority", setting, findings),
    )
    return compiled if setting.enabled else None


def _distribute(path: str, setting: LocalityLbSetting, findings: Findings) -> tuple[LocalityShares, ...]:
    compiled: list[LocalityShares] = []
    for index, entry in enumerate(setting.distribute):
        here = f"{path}[{index}]"
        _check_locality(f"{here}.from", entry.from_, findings)
        for name, weight in entry.to.items():
            _check_locality(f'{here}.to["{name}"]', name, findings)
            findings.between(f'{here}.to["{name}"]', weight, 0, 100)
        if sum(entry.to.values()) != 100:
            findings.invalid(f"{here}.to", f"percentages sum to {sum(entry.to.values())}, want 100")
        for earlier in compiled:
            if locality_matches(entry.from_, earlier.source) or locality_matches(earlier.source, entry.from_):
                findings.duplicate(f"{here}.from", f'"{entry.from_}" overlaps "{earlier.source}": remove one of them')
        compiled.append(LocalityShares(source=entry.from_, targets=tuple(sorted(entry.to.items()))))
    return tuple(compiled)


def _check_locality(path: str, name: str, findings: Findings) -> None:
    parts = name.split("/")
    if not name or len(parts) > 3 or not all(parts) or any("*" in part for part in parts[:-1]) or "**" in name:
        findings.invalid(path, f'"{name}" is no locality: write region/zone/subzone, or * for the rest')
    elif "*" in parts[-1] and parts[-1] != "*":
        findings.invalid(path, f'"{name}": a * stands for a whole part')


def locality_matches(pattern: str, locality: str) -> bool:
    """Whether `region/zone/subzone` is in `pattern`; what the pattern leaves out, and its `*`, is any."""
    wanted, found = pattern.split("/"), locality.split("/")
    found += [""] * (len(wanted) - len(found))
    return all(part in ("*", own) for part, own in zip(wanted, found, strict=False))


def _failover(path: str, setting: LocalityLbSetting, findings: Findings) -> tuple[tuple[str, str], ...]:
    seen: set[str] = set()
    for index, entry in enumerate(setting.failover):
        here = f"{path}[{index}]"
        for field, region in (("from", entry.from_), ("to", entry.to)):
            if not region or "/" in region or "*" in region:
                findings.invalid(f"{here}.{field}", f'"{region}" is no region: write its name alone')
        if entry.from_ == entry.to:
            findings.invalid(here, f'"{entry.to}" cannot take over from itself')
        if entry.from_ in seen:
            findings.duplicate(f"{here}.from", f'"{entry.from_}" is named twice: remove one of them')
        seen.add(entry.from_)
    return tuple((entry.from_, entry.to) for entry in setting.failover)


def _priority_labels(path: str, setting: LocalityLbSetting, findings: Findings) -> tuple[tuple[str, str], ...]:
    compiled: list[tuple[str, str]] = []
    for index, text in enumerate(setting.failover_priority):
        key, _, value = text.partition("=")
        if not is_label_key(key) or not is_label_value(value):
            findings.invalid(f"{path}[{index}]", f'"{text}" is no label: write key or key=value')
        elif any(key == earlier for earlier, _ in compiled):
            findings.duplicate(f"{path}[{index}]", f'"{key}" is named twice: remove one of them')
        compiled.append((key, value))
    return tuple(compiled)
