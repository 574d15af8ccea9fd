"""The rules of an HTTPRoute that use every field; for services web, canary and both."""

from mesh.api.resources import Json


def backend(name: str, **more: object) -> Json:
    return {"name": name, "port": 80, **more}


def rule(path: str, *filters: Json, **more: object) -> Json:
    return {"matches": [{"path": {"value": path}}], "filters": list(filters), **more}


def rewrite(**path: str) -> Json:
    return {"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example", "path": path}}


def rewrite_host(hostname: str) -> Json:
    return {"type": "URLRewrite", "urlRewrite": {"hostname": hostname}}


def redirect(**fields: object) -> Json:
    return {"type": "RequestRedirect", "requestRedirect": fields}


HTTP_RULES: list[Json] = [
    {"backendRefs": [backend("web", weight=3), backend("canary", weight=1)]},
    {
        "matches": [
            {
                "path": {"type": "Exact", "value": "/exact"},
                "method": "GET",
                "headers": [{"name": "x-a", "type": "RegularExpression", "value": "1|2"}],
                "queryParams": [{"name": "q", "value": "v"}],
            }
        ],
        "backendRefs": [backend("canary", filters=[rewrite_host("inner.example")])],
    },
    rule("/full", rewrite(type="ReplaceFullPath", replaceFullPath="/whole"), backendRefs=[backend("web")]),
    rule("/pre", rewrite(type="ReplacePrefixMatch", replacePrefixMatch="/fix"), backendRefs=[backend("web")]),
    rule("/root", rewrite(type="ReplacePrefixMatch", replacePrefixMatch="/"), backendRefs=[backend("web")]),
    rule("/secure", redirect(scheme="https", hostname="web.example")),
    rule("/moved", redirect(path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}, statusCode=301)),
    rule(
        "/session",
        backendRefs=[backend("both")],
        sessionPersistence={
            "sessionName": "sid",
            "absoluteTimeout": "1h",
            "cookieConfig": {"lifetimeType": "Permanent"},
        },
    ),
    rule("/header", backendRefs=[backend("both")], sessionPersistence={"type": "Header", "sessionName": "x-sid"}),
    rule(
        "/cors",
        {"type": "CORS", "cors": {"allowOrigins": ["https://*.example"], "allowMethods": ["GET"]}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": backend("canary"), "percent": 100}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-route", "value": "cors"}]}},
        backendRefs=[backend("web")],
        timeouts={"request": "5s", "backendRequest": "1s"},
        retry={"codes": [503], "attempts": 2, "backoff": "10ms"},
    ),
    rule("/gone", backendRefs=[backend("gone")]),
]
