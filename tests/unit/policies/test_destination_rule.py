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
from policies.traffic import CompiledDestinationRule, LoadBalancing

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
