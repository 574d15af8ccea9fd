"""HTTPRoutes: what is refused with which words, what valid ones compile to, and their precedence."""

from typing import Any

import pytest

from mesh.api.gateway import HttpRoute
from mesh.api.resources import HTTP_ROUTES, Json
from mesh.api.schema import SchemaRegistry
from mesh.routing.table import DirectResponse, MatchKind, PathKind, RegexRewrite, StringMatch
from policies.errors import Problems
from policies.http_route import compile_http_route
from policies.http_route_match import rank_of
from policies.http_route_values import CompiledHttpRoute
from policies.registry import Registry
from policies.validation import validate_policy
from policies.values import (
    DEFAULT_RETRY,
    EVERYWHERE,
    SAFE_RETRY_ON,
    CompiledRoute,
    Cors,
    Forward,
    PortOf,
    RedirectTo,
    Retry,
    Session,
)

pytestmark = pytest.mark.unit

WEB, CANARY = "web.shop.svc.cluster.local", "canary.shop.svc.cluster.local"
REGISTRY = Registry(ports={WEB: frozenset({80}), CANARY: frozenset({80, 81})})
PARENT: Json = {"group": "", "kind": "Service", "name": "web"}


def manifest(*rules: Json, parents: tuple[Json, ...] = (PARENT,), **spec: Any) -> Json:
    meta = {"name": "r", "namespace": "shop", "generation": 2, "annotations": {"meshwork.dev/source": "r.yaml:3"}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta,
        "spec": {"parentRefs": list(parents), "rules": list(rules), **spec},
    }


def backend(name: str = "web", port: int = 80, **more: Any) -> Json:
    return {"name": name, "port": port, **more}


def rule(*filters: Json, path: str = "/a", **more: Any) -> Json:
    matches = [{"path": {"type": "PathPrefix", "value": path}}]
    return {"matches": matches, "filters": list(filters), "backendRefs": [backend()], **more}


def result_of(*rules: Json, **more: Any) -> CompiledHttpRoute | Problems:
    return compile_http_route(HttpRoute.of(manifest(*rules, **more)), REGISTRY)


def compiled(*rules: Json, **more: Any) -> CompiledHttpRoute:
    result = result_of(*rules, **more)
    assert isinstance(result, CompiledHttpRoute), str(result)
    return result


def only(*filters: Json, **more: Any) -> CompiledRoute:
    (entry,) = compiled(rule(*filters, **more)).entries
    return entry.route


def forward(*filters: Json, **more: Any) -> Forward:
    action = only(*filters, **more).action
    assert isinstance(action, Forward)
    return action


def rewrite(kind: str, value: str) -> Json:
    field = kind[0].lower() + kind[1:]
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": kind, field: value}}}


def redirect(**fields: Any) -> Json:
    return {"type": "RequestRedirect", "requestRedirect": fields}


def mirror(**fields: Any) -> Json:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": backend("canary"), **fields}}


def cors(**fields: Any) -> Json:
    return {"type": "CORS", "cors": {"allowOrigins": ["*"], **fields}}


def headers(kind: str = "request", **fields: Any) -> Json:
    return {"type": f"{kind.capitalize()}HeaderModifier", f"{kind}HeaderModifier": fields}


def path(kind: str, value: str) -> Json:
    return {"matches": [{"path": {"type": kind, "value": value}}], "backendRefs": [backend()]}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (path("Exact", "a"), 'matches[0].path.value: "a": a path starts with "/"'),
        (path("PathPrefix", "/a//b"), '"/a//b" contains "//"'),
        (path("PathPrefix", "/a/.."), 'contains "/.."'),
        (path("Exact", "/a b"), "percent-encode them"),
        (path("Glob", "/a"), "use Exact, PathPrefix or RegularExpression"),
        (path("RegularExpression", "/("), "is not a regular expression"),
        ({"matches": [{"method": "FETCH"}], "backendRefs": [backend()]}, '"FETCH": use CONNECT'),
        ({"matches": [{"headers": [{"name": "a b", "value": "1"}]}]}, "is no header name"),
        ({"matches": [{"headers": [{"name": "a", "type": "X", "value": "1"}]}]}, "use Exact or RegularExpression"),
        ({"matches": [{"queryParams": [{"name": "a", "type": "RegularExpression", "value": "("}]}]}, "queryParams[0]"),
        ({"backendRefs": [{"name": "web"}]}, "backendRefs[0].port: say which port"),
        (
            rule({"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "b", "name": "c"}}),
            "not supported here",
        ),
        (rule({"type": "CORS"}), "type is CORS: give exactly its field"),
        (rule(headers(set=[]), headers(add=[])), "RequestHeaderModifier is given twice"),
        (rule(headers(set=[{"name": "host", "value": "x"}])), 'requestHeaderModifier.set["host"]'),
        (rule(headers("response", add=[{"name": "a", "value": "%B%"}])), "variables are not supported"),
        (rule(redirect(hostname="x")), "backendRefs: RequestRedirect answers by itself"),
        ({"filters": [redirect()]}, "changes nothing"),
        ({"filters": [redirect(hostname="x", statusCode=200)]}, "200 is no redirect"),
        ({"filters": [redirect(hostname="X:1")]}, "is no host name"),
        ({"filters": [redirect(hostname="x"), rewrite("ReplaceFullPath", "/")]}, "exclude each other"),
        (rule(rewrite("ReplaceFullPath", "b")), '"b": a path starts with "/"'),
        (rule(rewrite("ReplaceFullPath", "/b?c")), "is more than a path"),
        (rule(rewrite("ReplaceNothing", "/b")), "use ReplaceFullPath or ReplacePrefixMatch"),
        ({**path("Exact", "/a"), "filters": [rewrite("ReplacePrefixMatch", "/b")]}, "match by PathPrefix only"),
        (rule(mirror(percent=1, fraction={"numerator": 1})), "has percent and fraction"),
        (rule(mirror(fraction={"numerator": 5, "denominator": 4})), "5/4 is not between 0 and 1"),
        (rule(mirror(percent=101)), "101 is not in 0 to 100"),
        (rule(cors(allowOrigins=[])), "without an origin nothing is allowed"),
        (rule(cors(allowOrigins=["a.example"])), "is no origin"),
        (rule(cors(allowMethods=["*"], allowCredentials=True)), "browsers do not take *"),
        (rule(backendRefs=[backend(filters=[mirror()])]), "of one backend only"),
        (rule(backendRefs=[backend(weight=-1)]), "-1 is not in 0 to 1000000"),
        (rule(timeouts={"request": "1s", "backendRequest": "2s"}), "2s is longer than the whole request"),
        (rule(timeouts={"request": "soon"}), "timeouts.request"),
        (rule(retry={"codes": [200]}), "retry.codes[0]: 200 is not in 400 to 599"),
        (rule(retry={"attempts": 99}), "99 is not in 0 to 10"),
        (rule(sessionPersistence={"idleTimeout": "1h"}), "idleTimeout: is not supported"),
        (rule(sessionPersistence={"cookieConfig": {"lifetimeType": "Permanent"}}), "say how long a permanent cookie"),
        (rule(sessionPersistence={"absoluteTimeout": "1h"}), "needs cookieConfig.lifetimeType: Permanent"),
        (rule(sessionPersistence={"type": "Header", "absoluteTimeout": "1h"}), "a header carries no lifetime"),
        (rule(sessionPersistence={"sessionName": "a b"}), "is no header name"),
    ],
)
def test_wrong_rules_are_refused_with_field_and_advice(broken: Json, words: str) -> None:
    result = result_of(broken)
    assert isinstance(result, Problems)
    assert words in str(result)
    assert len(result.errors) == 1, str(result)
    assert str(result).startswith("HTTPRoute shop/r (r.yaml:3): spec.rules[0]")


def test_an_error_of_a_rule_is_told_once_for_all_its_matches() -> None:
    matches = [{"path": {"value": "/a"}}, {"path": {"value": "/b"}}]
    assert (
        len(validate_policy(manifest({"matches": matches, "retry": {"codes": [1]}, "backendRefs": [backend()]}))) == 1
    )
    assert validate_policy(manifest(rule(backendRefs=[backend("gone")]))) == ()


def test_parents() -> None:
    parents: tuple[Json, ...] = (
        PARENT,
        {**PARENT, "port": 80},
        {**PARENT, "namespace": "other", "name": "api"},
        {"name": "edge"},
    )
    found = compiled(rule(), parents=parents).parents
    assert [(p.host, p.port, sorted(p.visibility.namespaces)) for p in found] == [
        (WEB, 0, []),
        (WEB, 80, []),
        ("api.other.svc.cluster.local", 0, ["shop"]),
    ]
    assert found[0].visibility == EVERYWHERE
    assert isinstance(result_of(rule(), parents=(PARENT, PARENT)), Problems)
    assert isinstance(result_of(rule(), parents=({**PARENT, "sectionName": "x"},)), Problems)


def test_matches() -> None:
    match = {
        "path": {"type": "PathPrefix", "value": "/a/"},
        "method": "GET",
        "headers": [
            {"name": "X-A", "value": "1"},
            {"name": "x-a", "value": "2"},
            {"name": "b", "type": "RegularExpression", "value": "c.*"},
        ],
        "queryParams": [{"name": "Q", "value": "v"}],
    }
    (entry,) = compiled({"matches": [match, match], "backendRefs": [backend()]}).entries
    request = entry.route.matches[0].request
    assert (request.path.kind, request.path.value) == (PathKind.SEGMENT_PREFIX, "/a")
    assert [(h.name, h.match) for h in request.headers] == [
        (":method", StringMatch(kind=MatchKind.EXACT, value="GET")),
        ("x-a", StringMatch(kind=MatchKind.EXACT, value="1")),
        ("b", StringMatch(kind=MatchKind.REGEX, value="c.*")),
    ]
    assert [(q.name, q.match) for q in request.query] == [("Q", StringMatch(kind=MatchKind.EXACT, value="v"))]
    (everything,) = compiled({"backendRefs": [backend()]}).entries
    assert everything.route.matches[0].request.path.kind is PathKind.PREFIX


def test_precedence_is_gateway_apis() -> None:
    """From the most to the least exact; the order given is the reverse."""
    ordered: list[Json] = [
        {"path": {"type": "Exact", "value": "/a/b"}},
        {"path": {"type": "Exact", "value": "/a"}, "method": "GET"},
        {"path": {"type": "Exact", "value": "/a"}},
        {"path": {"value": "/a/bc"}},
        {"path": {"value": "/a"}, "method": "GET"},
        {"path": {"value": "/a"}, "headers": [{"name": "x", "value": "1"}, {"name": "y", "value": "1"}]},
        {
            "path": {"value": "/a"},
            "headers": [{"name": "x", "value": "1"}],
            "queryParams": [{"name": "q", "value": "1"}],
        },
        {"path": {"value": "/a"}, "headers": [{"name": "x", "value": "1"}]},
        {"path": {"value": "/a"}, "queryParams": [{"name": "q", "value": "1"}]},
        {"path": {"value": "/a"}},
        {"path": {"value": "/"}},
        {"path": {"type": "RegularExpression", "value": "/[ab]"}},
    ]
    entries = compiled(*({"matches": [match], "backendRefs": [backend()]} for match in reversed(ordered))).entries
    found = sorted(entries, key=lambda entry: entry.rank)
    assert [entry.route.provenance.field for entry in found] == [
        f"spec.rules[{len(ordered) - 1 - place}]" for place in range(len(ordered))
    ]
    assert all(entry.rank == rank_of(entry.route.matches[0].request) for entry in entries)


def test_backends_with_weights_and_filters() -> None:
    action = forward(
        backendRefs=[
            backend(
                weight=3, filters=[headers(set=[{"name": "x-a", "value": "1"}]), headers("response", remove=["b"])]
            ),
            backend("canary", 81, filters=[{"type": "URLRewrite", "urlRewrite": {"hostname": "inner"}}]),
        ]
    )
    assert [(d.host, d.port, d.weight, d.host_rewrite) for d in action.destinations] == [
        (WEB, 80, 3, None),
        (CANARY, 81, 1, "inner"),
    ]
    assert action.destinations[0].request_headers.add[0].name == "x-a"
    assert action.destinations[0].response_headers.remove == ("b",)
    assert action.destinations[1].provenance.field == "spec.rules[0].backendRefs[1]"


@pytest.mark.parametrize(
    ("refs", "reason"),
    [
        ([backend("gone")], "BackendNotFound"),
        ([backend(port=99)], "BackendNotFound"),
        ([backend(namespace="other")], "RefNotPermitted"),
        ([{"name": "bucket", "kind": "Bucket", "group": "storage.example"}], "InvalidKind"),
        ([backend(weight=0)], ""),
        ([], ""),
    ],
)
def test_without_a_usable_backend_the_answer_is_500(refs: list[Json], reason: str) -> None:
    route = compiled(rule(backendRefs=refs))
    assert route.entries[0].route.action == DirectResponse(status=500)
    assert [problem.reason for problem in route.problems] == ([reason] if reason else [])


def test_one_bad_backend_leaves_the_others_their_shares() -> None:
    route = compiled(rule(backendRefs=[backend(weight=9), backend("gone")]))
    action = route.entries[0].route.action
    assert isinstance(action, Forward)
    assert [(d.host, d.weight) for d in action.destinations] == [(WEB, 9), ("", 1)]
    assert "spec.rules[0].backendRefs[1]" in route.problems[0].message


@pytest.mark.parametrize(
    ("match", "kind", "value", "prefix", "regex"),
    [
        ("/a", "ReplacePrefixMatch", "/b", "/b", None),
        ("/a", "ReplacePrefixMatch", "/b/", "/b", None),
        ("/a", "ReplacePrefixMatch", "/", None, RegexRewrite(pattern="^/a/*", substitution="/")),
        ("/a.b", "ReplacePrefixMatch", "", None, RegexRewrite(pattern=r"^/a\.b/*", substitution="/")),
        ("/", "ReplacePrefixMatch", "/b", "/b", None),
        ("/", "ReplacePrefixMatch", "/", None, None),
        ("/a", "ReplaceFullPath", "/b\\1", None, RegexRewrite(pattern="^/.*$", substitution="/b\\\\1")),
    ],
)
def test_rewrites(match: str, kind: str, value: str, prefix: str | None, regex: RegexRewrite | None) -> None:
    action = forward(rewrite(kind, value), path=match)
    assert (action.prefix_rewrite, action.regex_rewrite) == (prefix, regex)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scheme": "https"}, RedirectTo(scheme="https", port_of=PortOf.SCHEME, status=302)),
        ({"scheme": "https", "port": 443}, RedirectTo(scheme="https", port_of=PortOf.SCHEME, status=302)),
        ({"scheme": "https", "port": 8443}, RedirectTo(scheme="https", port=8443, status=302)),
        (
            {"hostname": "x.example", "statusCode": 301},
            RedirectTo(host="x.example", port_of=PortOf.REQUEST, status=301),
        ),
        (
            {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/b"}},
            RedirectTo(path="/b", port_of=PortOf.REQUEST, status=302),
        ),
        (
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}},
            RedirectTo(prefix="/b", port_of=PortOf.REQUEST, status=302),
        ),
        (
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
            RedirectTo(regex=RegexRewrite(pattern="^/a/*", substitution="/"), port_of=PortOf.REQUEST, status=302),
        ),
    ],
)
def test_redirects(fields: Json, expected: RedirectTo) -> None:
    assert only(redirect(**fields), backendRefs=[]).action == expected


def test_mirrors() -> None:
    action = forward(mirror(), mirror(percent=5), mirror(fraction={"numerator": 1, "denominator": 1000}))
    assert [(m.destination.host, m.percent) for m in action.mirrors] == [(CANARY, 100.0), (CANARY, 5.0), (CANARY, 0.1)]
    gone = compiled(rule({"type": "RequestMirror", "requestMirror": {"backendRef": backend("gone")}}))
    assert [problem.reason for problem in gone.problems] == ["BackendNotFound"]


def test_cors() -> None:
    origins = ["*", "https://a.example:8443", "http://*.b.example", "https://*.c.example:*"]
    found = only(cors(allowOrigins=origins, allowMethods=["GET"], exposeHeaders=["*"])).cors
    assert found == Cors(
        origins=(
            StringMatch(kind=MatchKind.EXACT, value="*"),
            StringMatch(kind=MatchKind.EXACT, value="https://a.example:8443"),
            StringMatch(kind=MatchKind.REGEX, value=r"http://[A-Za-z0-9.-]+\.b\.example"),
            StringMatch(kind=MatchKind.REGEX, value=r"https://[A-Za-z0-9.-]+\.c\.example:\d+"),
        ),
        methods=("GET",),
        exposes=("*",),
        max_age_s=5,
        forwards_unmatched=False,
    )


def test_timeouts_and_retries() -> None:
    action = forward(timeouts={"request": "10s", "backendRequest": "2s"})
    assert (action.timeout_s, action.retry.per_try_timeout_s, action.retry.attempts) == (
        10.0,
        2.0,
        DEFAULT_RETRY.attempts,
    )
    retry = {"codes": [503, 504, 503], "attempts": 3, "backoff": "100ms"}
    expected = Retry(attempts=3, retry_on=SAFE_RETRY_ON, statuses=(503, 504), back_off_s=0.1)
    assert forward(retry=retry).retry == expected
    assert forward(timeouts={"request": "0s", "backendRequest": "0s"}).retry == DEFAULT_RETRY


def test_sessions() -> None:
    assert only(sessionPersistence={}).session == Session(name="mesh-r-0")
    permanent = {"sessionName": "sid", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}
    assert only(sessionPersistence=permanent).session == Session(name="sid", ttl_s=3600.0)
    assert only(sessionPersistence={"type": "Header", "sessionName": "x-s"}).session == Session(
        name="x-s", is_header=True
    )


def test_the_schema_fills_in_gateway_apis_defaults() -> None:
    schemas = SchemaRegistry()
    obj = {"spec": {"parentRefs": [{"name": "a"}], "rules": [{"backendRefs": [{"name": "b", "port": 1}]}]}}
    spec = schemas.apply_schema_defaults(HTTP_ROUTES, obj)["spec"]
    assert spec["parentRefs"] == [{"name": "a", "group": "gateway.networking.k8s.io", "kind": "Gateway"}]
    (only_rule,) = spec["rules"]
    assert only_rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert only_rule["backendRefs"] == [{"name": "b", "port": 1, "group": "", "kind": "Service", "weight": 1}]
    assert schemas.validate(HTTP_ROUTES, manifest(rule(mirror(percent=1), cors(), headers(remove=["a"])))) == ()


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"rules": [{}] * 17}, "spec.rules"),
        ({"rules": [{"matches": [{}] * 65}]}, "spec.rules[0].matches"),
        ({"rules": [{"timeouts": {"request": "1.5s"}}]}, "spec.rules[0].timeouts.request"),
        ({"rules": [{"retry": {"codes": [399]}}]}, "spec.rules[0].retry.codes[0]"),
        ({"rules": [{"backendRefs": [{"port": 1}]}]}, "spec.rules[0].backendRefs[0].name"),
        ({"rules": [{"backendRefs": [{"name": "a", "weight": 1000001}]}]}, "spec.rules[0].backendRefs[0].weight"),
        ({"rules": [{"filters": [{"type": "Magic"}]}]}, "spec.rules[0].filters[0].type"),
        ({"hostnames": [""]}, "spec.hostnames[0]"),
    ],
)
def test_the_schema_holds_gateway_apis_bounds(spec: Json, field: str) -> None:
    errors = SchemaRegistry().validate(HTTP_ROUTES, {"spec": spec})
    assert [error.path for error in errors] == [field]
