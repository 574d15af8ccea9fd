"""DestinationRules: what is refused with which words, and how settings are inherited."""

from typing import Any

import pytest

from mesh.api.networking import DestinationRule
from mesh.api.resources import Json
from policies.destination_rule import compile_destination_rule
from policies.durations import parse_duration
from policies.errors import DurationError, Problems
from policies.regexes import regex_problem
from policies.registry import Registry
from policies.traffic import (
    CompiledDestinationRule,
    HashKey,
    HashSource,
    HealthCheck,
    Keepalive,
    LoadBalancing,
    LocalityBalancing,
    LocalityShares,
    SlowStart,
)

pytestmark = pytest.mark.unit

WEB = "web.shop.svc.cluster.local"
REGISTRY = Registry(ports={WEB: frozenset({80})})


def compile_rule(**spec: Any) -> CompiledDestinationRule | Problems:
    meta = {"name": "web", "namespace": "shop", "generation": 1}
    return compile_destination_rule(DestinationRule.of({"metadata": meta, "spec": spec}), REGISTRY)


def compiled(**spec: Any) -> CompiledDestinationRule:
    result = compile_rule(host="web", **spec)
    assert isinstance(result, CompiledDestinationRule), str(result)
    return result


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "spec.host: name the service"),
        ({"host": "gone"}, 'spec.host: host "gone.shop.svc.cluster.local" is no Service'),
        ({"host": "*.shop"}, "wildcards are not supported"),
        ({"host": "web", "subsets": [{"name": "a"}, {"name": "a"}]}, 'subset "a" is defined twice'),
        ({"host": "web", "subsets": [{}]}, "spec.subsets[0].name: give the subset a name"),
        ({"host": "web", "subsets": [{"name": "a|b"}]}, "use letters, digits"),
        ({"host": "web", "subsets": [{"name": "a", "labels": {"x y": "z"}}]}, "no pod can carry it"),
        ({"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "FASTEST"}}}, 'simple: "FASTEST" is not known'),
        ({"host": "web", "trafficPolicy": {"outlierDetection": {"interval": "-3s"}}}, "interval: duration"),
        ({"host": "web", "trafficPolicy": {"outlierDetection": {"maxEjectionPercent": 101}}}, "101 is not in 0 to 100"),
        ({"host": "web", "trafficPolicy": {"connectionPool": {"tcp": {"maxConnections": -1}}}}, "-1 is below 0"),
        ({"host": "web", "exportTo": ["*", "."]}, "already means every namespace"),
    ],
)
def test_wrong_rules_are_refused_with_field_and_advice(spec: Json, words: str) -> None:
    result = compile_rule(**spec)
    assert isinstance(result, Problems)
    assert words in str(result)
    assert len(result.errors) == 1


def test_limits_are_finite_and_nothing_is_ejected_unless_asked() -> None:
    settings = compiled().settings
    assert (settings.max_connections, settings.max_requests, settings.outlier) == (1024, 1024, None)
    assert settings.load_balancing is LoadBalancing.LEAST_REQUEST


def test_subset_overrides_its_rule_group_by_group() -> None:
    rule = compiled(
        trafficPolicy={
            "loadBalancer": {"simple": "ROUND_ROBIN"},
            "outlierDetection": {"consecutive5xxErrors": 3, "baseEjectionTime": "1m", "minHealthPercent": 20},
        },
        subsets=[
            {"name": "v1", "labels": {"version": "v1"}},
            {"name": "v2", "labels": {"version": "v2"}, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}},
        ],
    )
    v1, v2 = rule.subsets["v1"].settings, rule.subsets["v2"].settings
    assert v1 == rule.settings
    assert v2.load_balancing is LoadBalancing.RANDOM
    assert v2.outlier == rule.settings.outlier
    assert v2.outlier is not None
    assert (v2.outlier.consecutive_5xx, v2.outlier.base_ejection_s, v2.min_health_percent) == (3, 60.0, 20)
    assert rule.subsets["v2"].provenance.field == "spec.subsets[1]"


def test_port_settings_stand_alone() -> None:
    rule = compiled(
        trafficPolicy={
            "outlierDetection": {},
            "portLevelSettings": [{"port": {"number": 80}, "connectionPool": {"tcp": {"maxConnections": 7}}}],
        },
        subsets=[{"name": "v1", "labels": {"version": "v1"}}],
    )
    assert rule.settings_for(80).max_connections == 7
    assert rule.settings_for(80).outlier is None
    assert rule.settings_for(81).outlier is not None
    assert rule.subsets["v1"].settings_for(80).max_connections == 7


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.5s", 1.5), ("250ms", 0.25), ("1h10m", 4200.0), ("0", 0.0), (".5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1s 2s", "-1s", "1e3s", "99999h", "1d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DurationError):
        parse_duration(text)


@pytest.mark.parametrize("pattern", ["/a.*", "[(+]+", r"\d{1,3}", "(?:a|b)+", "(?i)x", "a+?", "([*+])?", r"\(a+\)+"])
def test_common_regexes_pass(pattern: str) -> None:
    assert regex_problem(pattern) == ""


@pytest.mark.parametrize("pattern", ["a++", "(?<!a)b", "(?P<n>a)(?P=n)", r"a\Z", "((a*)b?)*", "(a{2,})*", "x" * 1025])
def test_regexes_outside_the_common_subset_are_refused(pattern: str) -> None:
    assert regex_problem(pattern)


def policy(**traffic: Any) -> Json:
    return {"host": "web", "trafficPolicy": traffic}


def hashing(**wanted: Any) -> Json:
    return policy(loadBalancer={"consistentHash": wanted})


def locality(**wanted: Any) -> Json:
    return policy(loadBalancer={"localityLbSetting": wanted})


def keepalive(**wanted: Any) -> Json:
    return policy(connectionPool={"tcp": {"tcpKeepalive": wanted}})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (policy(loadBalancer={"simple": "PASSTHROUGH"}), "PASSTHROUGH is not supported"),
        (hashing(), "consistentHash: has no key: give one of"),
        (hashing(httpHeaderName="a", useSourceIp=True), "has 2 keys"),
        (hashing(httpHeaderName="a b"), "is no header name"),
        (hashing(httpCookie={"name": ""}), "httpCookie.name: name the cookie"),
        (hashing(httpCookie={"name": "c", "ttl": "soon"}), "ttl: "),
        (hashing(useSourceIp=True, maglev={"tableSize": 1000}), "1000 is not a prime"),
        (hashing(useSourceIp=True, maglev={"tableSize": 5000017}), "5000017 is not in 2 to 5000011"),
        (hashing(useSourceIp=True, maglev={}, ringHash={}), "a ring is given already"),
        (hashing(useSourceIp=True, ringHash={"minimumRingSize": 9000000}), "is not in 1 to 8388608"),
        (hashing(useSourceIp=True, ringHash={"minimumRingSize": 1}, minimumRingSize=2), "ringHash says it already"),
        (
            policy(loadBalancer={"simple": "RANDOM", "consistentHash": {"useSourceIp": True}}),
            "consistentHash is given already",
        ),
        (policy(loadBalancer={"warmup": {}}), "warmup.duration: say how long"),
        (policy(loadBalancer={"warmup": {"duration": "1s"}, "warmupDurationSecs": "1s"}), "warmup says it already"),
        (policy(loadBalancer={"warmup": {"duration": "1s", "aggression": 0.5}}), "0.5 is below 1"),
        (policy(loadBalancer={"warmup": {"duration": "1s", "minimumPercent": 101}}), "101 is not in 0 to 100"),
        (policy(loadBalancer={"simple": "RANDOM", "warmupDurationSecs": "1s"}), "RANDOM has no weights"),
        (
            policy(loadBalancer={"consistentHash": {"useSourceIp": True}, "warmupDurationSecs": "1s"}),
            "a hash decides by the key alone",
        ),
        (locality(distribute=[{"from": "a", "to": {"a": 100}}], failover=[{"from": "a", "to": "b"}]), "give only one"),
        (locality(distribute=[{"from": "a", "to": {"a": 99}}]), "percentages sum to 99, want 100"),
        (locality(distribute=[{"from": "a/*/c", "to": {"a": 100}}]), '"a/*/c" is no locality'),
        (locality(distribute=[{"from": "a/b*", "to": {"a": 100}}]), "a * stands for a whole part"),
        (
            locality(distribute=[{"from": "a/*", "to": {"a": 100}}, {"from": "a/b", "to": {"a": 100}}]),
            '"a/b" overlaps "a/*"',
        ),
        (locality(failover=[{"from": "a", "to": "a"}]), "cannot take over from itself"),
        (locality(failover=[{"from": "a/b", "to": "c"}]), '"a/b" is no region'),
        (locality(failover=[{"from": "a", "to": "b"}, {"from": "a", "to": "c"}]), '"a" is named twice'),
        (locality(failoverPriority=["a b"]), '"a b" is no label'),
        (locality(failoverPriority=["a", "a=1"]), '"a" is named twice'),
        (keepalive(probes=0), "0 is not in 1 to 127"),
        (keepalive(time="500ms"), "sockets count whole seconds"),
        (policy(connectionPool={"tcp": {"maxConnectionDuration": "x"}}), "maxConnectionDuration"),
        (policy(connectionPool={"http": {"h2UpgradePolicy": "UPGRADE"}}), "HTTP/2 upstream is not supported"),
        (policy(retryBudget={"percent": 101}), "101 is not in 0 to 100"),
        (policy(retryBudget={"minRetryConcurrency": -1}), "-1 is below 0"),
        (policy(retryBudget={}, connectionPool={"http": {"maxRetries": 3}}), "remove one of them"),
    ],
)
def test_wrong_balancing_and_limits_are_refused(spec: Json, words: str) -> None:
    result = compile_rule(**spec)
    assert isinstance(result, Problems)
    assert words in str(result)
    assert len(result.errors) == 1, str(result)


@pytest.mark.parametrize(
    ("wanted", "algorithm", "key", "size"),
    [
        ({"httpHeaderName": "x-user"}, LoadBalancing.RING_HASH, HashKey(source=HashSource.HEADER, name="x-user"), 0),
        (
            {"httpQueryParameterName": "user", "minimumRingSize": 7},
            LoadBalancing.RING_HASH,
            HashKey(source=HashSource.QUERY, name="user"),
            7,
        ),
        (
            {"useSourceIp": True, "ringHash": {"minimumRingSize": 9}},
            LoadBalancing.RING_HASH,
            HashKey(source=HashSource.SOURCE_IP),
            9,
        ),
        (
            {"httpCookie": {"name": "c", "path": "/p", "ttl": "0s"}, "maglev": {"tableSize": 251}},
            LoadBalancing.MAGLEV,
            HashKey(source=HashSource.COOKIE, name="c", path="/p", ttl_s=0.0),
            251,
        ),
        (
            {"httpCookie": {"name": "c"}, "maglev": {}},
            LoadBalancing.MAGLEV,
            HashKey(source=HashSource.COOKIE, name="c"),
            0,
        ),
    ],
)
def test_keys_and_tables(wanted: Json, algorithm: LoadBalancing, key: HashKey, size: int) -> None:
    settings = compiled(trafficPolicy={"loadBalancer": {"consistentHash": wanted}}).settings
    assert (settings.load_balancing, settings.hash_key, settings.table_size) == (algorithm, key, size)


def test_warmup_in_both_forms() -> None:
    older = compiled(trafficPolicy={"loadBalancer": {"warmupDurationSecs": "20s"}}).settings
    assert older.slow_start == SlowStart(window_s=20.0)
    newer = {"simple": "ROUND_ROBIN", "warmup": {"duration": "1m", "minimumPercent": 5, "aggression": 1.5}}
    settings = compiled(trafficPolicy={"loadBalancer": newer}).settings
    assert settings.slow_start == SlowStart(window_s=60.0, min_percent=5.0, aggression=1.5)


def test_failover_needs_somebody_to_tell_health() -> None:
    failover = {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}
    assert compiled(trafficPolicy={"loadBalancer": failover}).settings.active_locality is None
    active = compiled(trafficPolicy={"loadBalancer": failover, "outlierDetection": {}}).settings.active_locality
    assert active == LocalityBalancing(failover=(("a", "b"),))
    off = {"localityLbSetting": {"enabled": False, "failover": [{"from": "a", "to": "b"}]}}
    assert compiled(trafficPolicy={"loadBalancer": off, "outlierDetection": {}}).settings.active_locality is None
    shares = {"localityLbSetting": {"distribute": [{"from": "a", "to": {"b": 30, "a": 70}}]}}
    found = compiled(trafficPolicy={"loadBalancer": shares}).settings.active_locality
    assert found == LocalityBalancing(distribute=(LocalityShares(source="a", targets=(("a", 70), ("b", 30))),))


def test_connections_and_retry_budget() -> None:
    pool = {
        "tcp": {
            "tcpKeepalive": {"probes": 3, "time": "60s", "interval": "5s"},
            "idleTimeout": "1h",
            "maxConnectionDuration": "2h",
        },
        "http": {"idleTimeout": "30s", "useClientProtocol": True, "h2UpgradePolicy": "DEFAULT"},
    }
    settings = compiled(
        trafficPolicy={"connectionPool": pool, "retryBudget": {"percent": 30.5, "minRetryConcurrency": 0}}
    ).settings
    assert settings.keepalive == Keepalive(probes=3, time_s=60.0, interval_s=5.0)
    assert (settings.idle_timeout_s, settings.tcp_idle_timeout_s, settings.max_connection_duration_s) == (
        30,
        3600,
        7200,
    )
    assert (settings.budget_percent, settings.budget_min, settings.max_retries) == (30.5, 0, None)


def annotated(lb: str = "", check: str = "", **traffic: Any) -> CompiledDestinationRule | Problems:
    annotations = {"meshwork.dev/lb": lb, "meshwork.dev/health-check": check}
    meta = {"name": "web", "namespace": "shop", "annotations": {k: v for k, v in annotations.items() if v}}
    subsets = [{"name": "v1", "labels": {"version": "v1"}}]
    spec = {"host": "web", "trafficPolicy": traffic, "subsets": subsets}
    return compile_destination_rule(DestinationRule.of({"metadata": meta, "spec": spec}), REGISTRY)


def test_annotations_hold_for_every_cluster() -> None:
    check = '{"path": "/healthz", "host": "web", "interval": "5s", "timeout": "2s", "healthyThreshold": 2}'
    rule = annotated("PEAK_EWMA", check, portLevelSettings=[{"port": {"number": 80}}])
    assert isinstance(rule, CompiledDestinationRule)
    expected = HealthCheck(path="/healthz", host="web", interval_s=5.0, timeout_s=2.0, healthy_threshold=2)
    for settings in rule.all_settings():
        assert (settings.uses_peak_ewma, settings.health_check) == (True, expected)
    tcp = annotated(check="{}")
    assert isinstance(tcp, CompiledDestinationRule)
    assert tcp.settings.health_check == HealthCheck()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lb": "FASTEST"}, 'metadata.annotations[meshwork.dev/lb]: "FASTEST": use PEAK_EWMA'),
        ({"lb": "PEAK_EWMA", "loadBalancer": {"simple": "RANDOM"}}, "excludes loadBalancer RANDOM"),
        ({"check": "/healthz"}, "metadata.annotations[meshwork.dev/health-check]: JSON is malformed"),
        ({"check": '{"paths": "/"}'}, "unknown field `paths`"),
        ({"check": '{"path": "healthz"}'}, 'health-check].path: "healthz": a path starts with "/"'),
        ({"check": '{"interval": "0"}'}, "too short"),
        ({"check": '{"unhealthyThreshold": 0}'}, "unhealthyThreshold: 0 is not in 1 to 1000"),
        ({"check": '{"host": "a b"}'}, '"a b" is no host'),
    ],
)
def test_wrong_annotations_are_refused(arguments: Any, words: str) -> None:
    result = annotated(**arguments)
    assert isinstance(result, Problems)
    assert words in str(result)
    assert len(result.errors) == 1, str(result)
