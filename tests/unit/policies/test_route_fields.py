"""What single fields of a VirtualService's HTTP routes compile to, and which words refuse wrong ones."""

from typing import Any

import pytest

from mesh.api.networking import VirtualService
from mesh.api.resources import Json
from mesh.routing.table import DirectResponse, MatchKind, RegexRewrite, StringMatch
from policies.errors import Problems
from policies.registry import Registry
from policies.route_retry import CONDITIONS
from policies.values import CompiledRoute, Cors, Fault, Forward, PortOf, RedirectTo, Retry
from policies.virtual_service import compile_virtual_service

pytestmark = pytest.mark.unit

WEB, CANARY = "web.shop.svc.cluster.local", "canary.shop.svc.cluster.local"
REGISTRY = Registry(ports={WEB: frozenset({80}), CANARY: frozenset({80})}, subsets={WEB: frozenset({"v1"})})
TO_WEB: Json = {"route": [{"destination": {"host": "web"}}]}


def compile_route(route: Json, **annotations: str) -> CompiledRoute | str:
    """The only route, or the errors' text."""
    meta = {"name": "web", "namespace": "shop", "annotations": {f"meshwork.dev/{k}": v for k, v in annotations.items()}}
    obj = {"metadata": meta, "spec": {"hosts": ["web"], "http": [route]}}
    result = compile_virtual_service(VirtualService.of(obj), REGISTRY)
    return str(result) if isinstance(result, Problems) else result.routes[0]


def compiled(route: Json, **annotations: str) -> CompiledRoute:
    result = compile_route(route, **annotations)
    assert isinstance(result, CompiledRoute), result
    return result


def forward(route: Json, **annotations: str) -> Forward:
    action = compiled({**TO_WEB, **route}, **annotations).action
    assert isinstance(action, Forward)
    return action


def percent(value: float) -> Json:
    return {"percentage": {"value": value}}


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({**TO_WEB, "delegate": {"name": "other"}}, "delegate: delegation is not supported"),
        ({**TO_WEB, "mirror": {"host": "gone"}}, 'mirror.host: host "gone.shop.svc.cluster.local" is no Service'),
        ({**TO_WEB, "mirror": {"host": "web", "subset": "v9"}}, 'mirror.subset: subset "v9"'),
        ({**TO_WEB, "mirrors": [{"destination": {}}]}, "mirrors[0].destination.host: name the service"),
        ({**TO_WEB, "mirrors": [{"destination": {"host": "web"}, **percent(101)}]}, "101 is not in 0 to 100"),
        ({**TO_WEB, "mirrorPercentage": {"value": 5}}, "belongs to mirror, which is not given"),
        (
            {**TO_WEB, "mirror": {"host": "web"}, "mirrors": [{"destination": {"host": "web"}}]},
            "mirrors: mirror is given already",
        ),
        ({**TO_WEB, "fault": {}}, "fault: give a delay, an abort, or both"),
        ({**TO_WEB, "fault": {"delay": percent(1)}}, "fault.delay.fixedDelay: say how long"),
        ({**TO_WEB, "fault": {"delay": {"fixedDelay": "1s"}}}, "fault.delay.percentage: say how many"),
        ({**TO_WEB, "fault": {"abort": {"httpStatus": 199, **percent(1)}}}, "199 is not in 200 to 599"),
        ({**TO_WEB, "fault": {"abort": percent(1)}}, "abort.httpStatus: say which status"),
        ({**TO_WEB, "fault": {"abort": {"grpcStatus": "UNAVAILABLE", **percent(1)}}}, "gRPC is not routed as HTTP"),
        ({**TO_WEB, "corsPolicy": {}}, "allowOrigins: without an origin nothing is allowed"),
        ({**TO_WEB, "corsPolicy": {"allowOrigins": [{}]}}, "allowOrigins[0]: give one of exact, prefix or regex"),
        ({**TO_WEB, "corsPolicy": {"allowOrigins": [{"regex": "("}]}}, "is not a regular expression"),
        (
            {**TO_WEB, "corsPolicy": {"allowOrigins": [{"exact": "*"}], "allowMethods": ["GET,PUT"]}},
            'allowMethods[0]: "GET,PUT" is no name',
        ),
        ({**TO_WEB, "corsPolicy": {"allowOrigins": [{"exact": "*"}], "maxAge": "1d"}}, "is not a duration"),
        (
            {**TO_WEB, "rewrite": {"uri": "/a", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}},
            "uriRegexRewrite: uri is given already",
        ),
        ({**TO_WEB, "rewrite": {"uriRegexRewrite": {"rewrite": "b"}}}, "match: say what to replace"),
        ({**TO_WEB, "rewrite": {"uriRegexRewrite": {"match": "(", "rewrite": ""}}}, "is not a regular expression"),
        ({**TO_WEB, "rewrite": {"uriRegexRewrite": {"match": "(a)", "rewrite": r"\2"}}}, r"\2: the regex has 1 groups"),
        ({**TO_WEB, "rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": r"\n"}}}, "a backslash stands before"),
        (
            {"redirect": {"uri": "/", "port": 80, "derivePort": "FROM_REQUEST_PORT"}},
            "derivePort: port is given already",
        ),
        ({"redirect": {"uri": "/", "derivePort": "FROM_STARS"}}, "use FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT"),
        ({"redirect": {"uri": "/"}, "timeout": "1s"}, "timeout: has no meaning without a destination"),
        ({"directResponse": {"status": 200}, "mirror": {"host": "web"}}, "mirror: has no meaning"),
        ({"directResponse": {"status": 200, "body": {"string": "a", "bytes": "YQ=="}}}, "has string and bytes"),
        ({"directResponse": {"status": 200, "body": {"bytes": "%%"}}}, "body.bytes: is not base64"),
        ({"directResponse": {"status": 200, "body": {"string": "x" * 4097}}}, "at most 4096"),
        ({**TO_WEB, "retries": {"attempts": 1, "backoff": "-1s"}}, "retries.backoff: duration"),
        ({**TO_WEB, "retries": {"attempts": 1, "retryRemoteLocalities": True}}, "stays in the priority that is in use"),
        ({**TO_WEB, "retries": {"attempts": 1, "retryOn": "retriable-headers"}}, "list them in the annotation"),
    ],
)
def test_wrong_fields_are_refused_with_field_and_advice(route: Json, words: str) -> None:
    text = compile_route(route)
    assert isinstance(text, str)
    assert words in text
    assert len(text.splitlines()) == 1


def test_mirrors() -> None:
    one = forward({"mirror": {"host": "canary", "port": {"number": 80}}, "mirrorPercentage": {"value": 0.5}}).mirrors
    assert [(m.destination.host, m.destination.port, m.percent) for m in one] == [(CANARY, 80, 0.5)]
    two = forward({"mirrors": [{"destination": {"host": "canary"}}, {"destination": {"host": "web", "subset": "v1"}}]})
    assert [(m.destination.host, m.destination.subset, m.percent) for m in two.mirrors] == [
        (CANARY, "", 100.0),
        (WEB, "v1", 100.0),
    ]


def test_cors() -> None:
    policy = {
        "allowOrigins": [{"exact": "https://a"}, {"prefix": "https://b"}, {"regex": "https://c.*"}],
        "allowMethods": ["GET", "*"],
        "allowHeaders": ["x-a"],
        "exposeHeaders": ["x-b"],
        "maxAge": "1h",
        "allowCredentials": False,
        "unmatchedPreflights": "IGNORE",
    }
    assert compiled({**TO_WEB, "corsPolicy": policy}).cors == Cors(
        origins=(
            StringMatch(kind=MatchKind.EXACT, value="https://a"),
            StringMatch(kind=MatchKind.PREFIX, value="https://b"),
            StringMatch(kind=MatchKind.REGEX, value="https://c.*"),
        ),
        methods=("GET", "*"),
        headers=("x-a",),
        exposes=("x-b",),
        max_age_s=3600,
        allows_credentials=False,
        forwards_unmatched=False,
    )
    plain = compiled({**TO_WEB, "corsPolicy": {"allowOrigins": [{"exact": "*"}], "maxAge": "0s"}}).cors
    assert plain is not None
    assert (plain.max_age_s, plain.allows_credentials, plain.forwards_unmatched) == (0, None, True)


def test_faults() -> None:
    fault = {"delay": {"fixedDelay": "1.5s", **percent(0.1)}, "abort": {"httpStatus": 503, **percent(20)}}
    expected = Fault(delay_s=1.5, delay_percent=0.1, abort_status=503, abort_percent=20.0)
    assert compiled({**TO_WEB, "fault": fault}).fault == expected
    assert compiled({"redirect": {"uri": "/x"}, "fault": fault}).fault == expected


def test_rewrites_by_regex() -> None:
    rewrite = {"uriRegexRewrite": {"match": "^/a/([^/]+)", "rewrite": r"/\1/\\"}}
    route = {"match": [{"uri": {"regex": "/a/.*"}}], "rewrite": rewrite}
    assert forward(route).regex_rewrite == RegexRewrite(pattern="^/a/([^/]+)", substitution=r"/\1/\\")


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"port": 8443, "scheme": "https"}, RedirectTo(scheme="https", port=8443)),
        ({"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT"}, RedirectTo(scheme="https", port_of=PortOf.SCHEME)),
        ({"authority": "x", "derivePort": "FROM_REQUEST_PORT"}, RedirectTo(host="x", port_of=PortOf.REQUEST)),
    ],
)
def test_ports_of_redirects(redirect: Json, expected: RedirectTo) -> None:
    assert compiled({"redirect": redirect}).action == expected


def test_direct_response_of_bytes() -> None:
    response = {"status": 200, "body": {"bytes": "AAE="}}
    assert compiled({"directResponse": response}).action == DirectResponse(status=200, body=b"\x00\x01")


def test_every_condition_of_envoy_is_known() -> None:
    retries = {"attempts": 1, "retryOn": ",".join(sorted(CONDITIONS)) + ",503"}
    retry = forward({"retries": retries}, **{"retriable-headers": "X-Again, x-more"}).retry
    assert retry.retry_on == tuple(sorted(CONDITIONS))
    assert retry.headers == ("x-again", "x-more")
    assert {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
    } < CONDITIONS
    assert {
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "unavailable",
    } < CONDITIONS


def test_back_off_hosts_and_localities_of_retries() -> None:
    retries = {"attempts": 2, "backoff": "30ms", "retryIgnorePreviousHosts": False}
    expected = Retry(back_off_s=0.03, prefers_new_hosts=False)
    assert forward({"retries": retries}).retry == expected


def test_zero_timeout_means_none() -> None:
    action = forward({"timeout": "0s", "retries": {"attempts": 1, "perTryTimeout": "0s"}})
    assert (action.timeout_s, action.retry.per_try_timeout_s) == (None, None)


def test_annotations_of_replay() -> None:
    assert compiled(TO_WEB, replay="any").repeats_any
    assert not compiled(TO_WEB, replay="safe").repeats_any
    assert 'metadata.annotations[meshwork.dev/replay]: "all"' in str(compile_route(TO_WEB, replay="all"))
    assert "is no header name" in str(compile_route(TO_WEB, **{"retriable-headers": "a b"}))


def test_matches_of_other_gateways_are_left_out() -> None:
    matches: list[Json] = [
        {"uri": {"prefix": "/a"}, "gateways": ["edge"]},
        {"uri": {"prefix": "/b"}, "gateways": ["edge", "mesh"], "name": "b", "statPrefix": "stat"},
    ]
    (match,) = compiled({"match": matches, **TO_WEB}).matches
    assert (match.request.path.value, match.name, match.stat_prefix) == ("/b", "b", "stat")
    assert compiled({"match": matches[:1], **TO_WEB}).matches == ()


def test_names_do_not_make_matches_differ() -> None:
    twice: list[Any] = [{"uri": {"prefix": "/a"}, "name": "one"}, {"uri": {"prefix": "/a"}, "name": "two"}]
    assert "repeats spec.http[0].match[0]" in str(compile_route({"match": twice, **TO_WEB}))
