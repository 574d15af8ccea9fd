"""VirtualServices: what is refused with which words, and what valid ones compile to."""

from typing import Any

import pytest

from mesh.api.networking import VirtualService
from mesh.api.resources import Json
from mesh.routing.table import DirectResponse, PathKind
from policies.errors import Problems
from policies.registry import OPEN_REGISTRY, Registry
from policies.validation import validate_policy
from policies.values import CompiledVirtualService, Forward, RedirectTo, Retry
from policies.virtual_service import compile_virtual_service

pytestmark = pytest.mark.unit

WEB = "web.shop.svc.cluster.local"
REGISTRY = Registry(ports={WEB: frozenset({80})}, subsets={WEB: frozenset({"v1", "v2"})})


def manifest(*routes: Json, hosts: tuple[str, ...] = ("web",), **spec: Any) -> Json:
    meta = {"name": "web", "namespace": "shop", "generation": 3, "annotations": {"meshwork.dev/source": "web.yaml:14"}}
    return {"kind": "VirtualService", "metadata": meta, "spec": {"hosts": list(hosts), "http": list(routes), **spec}}


def to(host: str = "web", weight: int = 0, **destination: Any) -> Json:
    branch: Json = {"destination": {"host": host, **destination}}
    return {**branch, "weight": weight} if weight else branch


def compiled(*routes: Json, registry: Registry = REGISTRY, **more: Any) -> CompiledVirtualService:
    result = compile_virtual_service(VirtualService.of(manifest(*routes, **more)), registry)
    assert isinstance(result, CompiledVirtualService), str(result)
    return result


def problems(*routes: Json, registry: Registry = REGISTRY, **more: Any) -> str:
    result = compile_virtual_service(VirtualService.of(manifest(*routes, **more)), registry)
    assert isinstance(result, Problems)
    return str(result)


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (
            {"route": [to(weight=60, subset="v1"), to(weight=30, subset="v2")]},
            "spec.http[0].route: weights sum to 90, want 100",
        ),
        ({"route": [to(weight=-5), to(weight=105)]}, "route[0].weight: -5 is not in 0 to 100"),
        ({"route": [to(weight=50)]}, "50 for the only destination"),
        ({"route": [{"weight": 100}]}, "destination.host: name the service"),
        ({"route": [to("gone")]}, 'host "gone.shop.svc.cluster.local" is no Service'),
        ({"route": [to(subset="v3")]}, 'subset "v3" of "web.shop.svc.cluster.local" is not defined: known are v1, v2'),
        ({"route": [to(port={"number": 81})]}, "has no port 81: it has 80"),
        ({}, "spec.http[0].route: give at least one destination"),
        ({"route": [to()], "redirect": {"uri": "/"}}, "has route and redirect: give only one"),
        ({"route": [to()], "timeout": "-1s"}, 'spec.http[0].timeout: duration "-1s" is negative'),
        ({"route": [to()], "timeout": "5"}, '"5" is not a duration'),
        ({"route": [to()], "timeout": "1us"}, "too short"),
        ({"route": [to()], "retries": {"attempts": 2, "retryOn": "5xx,oops"}}, 'retries.retryOn: "oops" is not known'),
        ({"route": [to()], "retries": {"attempts": 99}}, "retries.attempts: 99 is not in 0 to 10"),
        ({"route": [to()], "retries": {"attempts": 1, "retryOn": "retriable-status-codes"}}, "needs the codes"),
        ({"route": [to()], "match": [{"uri": {"prefix": "a"}}]}, 'paths start with "/"'),
        ({"route": [to()], "match": [{"uri": {"exact": "/", "prefix": "/"}}]}, "give one of exact and prefix"),
        ({"route": [to()], "match": [{"uri": {"regex": "/("}}]}, "is not a regular expression"),
        ({"route": [to()], "match": [{"uri": {"regex": "/(?=a)"}}]}, "look-ahead"),
        ({"route": [to()], "match": [{"uri": {"regex": r"/(a)\1"}}]}, "back-reference"),
        ({"route": [to()], "match": [{"uri": {"regex": "/(a+)+b"}}]}, "exponential time"),
        ({"route": [to()], "match": [{"headers": {"a b": {"exact": "x"}}}]}, "is no header name"),
        ({"route": [to()], "match": [{"port": 1}, {"port": 1}]}, "repeats spec.http[0].match[0]"),
        ({"route": [to()], "headers": {"request": {"set": {"host": "x"}}}}, "use rewrite.authority"),
        ({"route": [to()], "headers": {"response": {"add": {"a": "x\r\ny"}}}}, "control characters"),
        ({"route": [to()], "headers": {"response": {"add": {"a": "%X%"}}}}, "variables are not supported"),
        ({"redirect": {}}, "changes nothing"),
        ({"redirect": {"uri": "/x", "redirectCode": 200}}, "200 is no redirect"),
        ({"directResponse": {"status": 99}}, "99 is not in 200 to 599"),
        (
            {"route": [to()], "match": [{"uri": {"regex": "/a.*"}}], "rewrite": {"uri": "/b"}},
            "match by prefix or exact",
        ),
    ],
)
def test_wrong_routes_are_refused_with_field_and_advice(route: Json, words: str) -> None:
    text = problems(route)
    assert words in text
    assert text.startswith("VirtualService shop/web (web.yaml:14): spec.http[0]")


def test_every_error_is_reported_at_once() -> None:
    text = problems({"route": [to("gone")], "timeout": "x"}, hosts=())
    assert len(text.splitlines()) == 3


def test_unreachable_routes_are_refused() -> None:
    assert "is never reached: spec.http[0] takes every request" in problems({"route": [to()]}, {"route": [to()]})
    twice = {"route": [to()], "match": [{"uri": {"prefix": "/a"}}]}
    assert "has the same match" in problems(twice, twice)


def test_references_are_left_open_when_nothing_is_known() -> None:
    assert validate_policy(manifest({"route": [to("gone", subset="x")]})) == ()
    assert [e.path for e in validate_policy(manifest({"route": [to(weight=90)]}))] == ["spec.http[0].route[0].weight"]
    assert validate_policy({"kind": "VirtualService", "spec": {"http": 7}})[0].reason == "FieldValueInvalid"
    assert validate_policy({"kind": "Service"}) == ()


def test_split_has_weights_and_provenance_of_each_branch() -> None:
    service = compiled({"name": "split", "route": [to(weight=90, subset="v1"), to("web.shop", 10, subset="v2")]})
    assert (service.hosts, service.generation, service.key) == ((WEB,), 3, "shop/web")
    action = service.routes[0].action
    assert isinstance(action, Forward)
    assert [(d.host, d.subset, d.weight) for d in action.destinations] == [(WEB, "v1", 90), (WEB, "v2", 10)]
    where = action.destinations[1].provenance
    assert (where.kind, where.name, where.field) == ("VirtualService", "web", "spec.http[0].route[1]")
    assert (where.file, where.line) == ("web.yaml", 14)
    assert action.retry == Retry()
    assert action.timeout_s is None


def test_retries_timeouts_and_rewrites() -> None:
    retries = {"attempts": 3, "perTryTimeout": "250ms", "retryOn": "5xx, reset,503"}
    service = compiled({"route": [to()], "timeout": "1m1.5s", "retries": retries, "rewrite": {"uri": "/v2"}})
    action = service.routes[0].action
    assert isinstance(action, Forward)
    expected = Retry(attempts=3, per_try_timeout_s=0.25, retry_on=("5xx", "reset"), statuses=(503,))
    assert (action.retry, action.timeout_s, action.prefix_rewrite) == (expected, 61.5, "/v2")


def test_matches_compile_to_conditions() -> None:
    match = {
        "uri": {"prefix": "/api"},
        "method": {"exact": "GET"},
        "headers": {"X-User": {"regex": "j.*"}, "x-any": {}},
        "withoutHeaders": {"x-debug": {}},
        "queryParams": {"v": {"exact": "2"}},
        "sourceLabels": {"b": "2", "a": "1"},
        "port": 80,
    }
    found = compiled({"match": [match], "route": [to()]}).routes[0].matches[0]
    assert (found.request.path.kind, found.request.path.value) == (PathKind.PREFIX, "/api")
    assert {h.name: (h.match is not None, h.invert) for h in found.request.headers} == {
        ":method": (True, False),
        "x-user": (True, False),
        "x-any": (False, False),
        "x-debug": (False, True),
    }
    assert found.request.query[0].name == "v"
    assert (found.port, found.source_labels) == (80, (("a", "1"), ("b", "2")))


def test_redirect_and_direct_response() -> None:
    service = compiled(
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "redirectCode": 308}},
        {"directResponse": {"status": 503, "body": {"string": "closed"}}},
    )
    assert [r.action for r in service.routes] == [
        RedirectTo(path="/new", status=308),
        DirectResponse(status=503, body=b"closed"),
    ]


def test_visibility_and_gateways() -> None:
    assert compiled({"route": [to()]}, exportTo=["."]).visibility.namespaces == {"shop"}
    assert compiled({"route": [to()]}).visibility.includes("other")
    assert not compiled({"route": [to()]}, gateways=["edge"]).is_for_sidecars
    assert compiled({"route": [to("a.b")]}, registry=OPEN_REGISTRY).routes
