"""The schema of HTTPRoute, as OpenAPI v3, with the bounds and defaults of Gateway API's CustomResourceDefinition."""

from typing import Any

from mesh.api.resources import Json
from mesh.api.schema_build import flag, list_of, number, object_of, text
from mesh.api.schema_networking import CONDITION

_DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
_HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
_FILTERS = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "CORS",
    "ExtensionRef",
]


def _name(description: str, **more: Any) -> Json:
    return text(description, minLength=1, maxLength=253, **more)


def _duration(description: str) -> Json:
    return text(f"{description} A duration such as 10s, 250ms or 1m30s.", pattern=_DURATION)


def _by_name(description: str, items: Json, most: int = 16) -> Json:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    return list_of(description, items, maxItems=most, **keys)


_PORT = number("Port number.", 1, 65535)
_PARENT_REF = object_of(
    "What the route is for: a Service.",
    ("name",),
    group=text('"" for a Service.', maxLength=253, default="gateway.networking.k8s.io"),
    kind=text("Service for the mesh.", minLength=1, maxLength=63, default="Gateway"),
    namespace=text("The route's own when left out.", minLength=1, maxLength=63),
    name=_name("Name."),
    sectionName=_name("Not for Services."),
    port=_PORT,
)
_HEADER = object_of(
    "A header.",
    ("name", "value"),
    name=text("Name.", minLength=1, maxLength=256, pattern=_HEADER_NAME),
    value=text("Value.", minLength=1, maxLength=4096),
)
_HEADER_MODIFIER = object_of(
    "Changes to headers.",
    set=_by_name("Overwrite.", _HEADER),
    add=_by_name("Append.", _HEADER),
    remove=list_of("Remove.", {"type": "string"}, maxItems=16, **{"x-kubernetes-list-type": "set"}),
)
_PATH_MODIFIER = object_of(
    "A new path.",
    ("type",),
    type=text("Which of the two.", enum=["ReplaceFullPath", "ReplacePrefixMatch"]),
    replaceFullPath=text("The whole path.", maxLength=1024),
    replacePrefixMatch=text("What the matched prefix becomes.", maxLength=1024),
)
_HOSTNAME = text("A host name without a port.", minLength=1, maxLength=253)
_BACKEND: dict[str, Json] = {
    "group": text('"" for a Service.', maxLength=253, default=""),
    "kind": text("Service.", minLength=1, maxLength=63, default="Service"),
    "name": _name("Name."),
    "namespace": text("The route's own when left out.", minLength=1, maxLength=63),
    "port": _PORT,
}


def _value_match(description: str, **name: Any) -> Json:
    return object_of(
        description,
        ("name", "value"),
        type=text("How to compare.", enum=["Exact", "RegularExpression"], default="Exact"),
        name=text("Name.", minLength=1, maxLength=256, **name),
        value=text("Value.", minLength=1, maxLength=4096),
    )


_FILTER = object_of(
    "A change to requests or responses.",
    ("type",),
    type=text("Names the field that is set.", enum=_FILTERS),
    requestHeaderModifier=_HEADER_MODIFIER,
    responseHeaderModifier=_HEADER_MODIFIER,
    requestMirror=object_of(
        "Copies of requests; their answers are dropped.",
        ("backendRef",),
        backendRef=object_of("Where to.", ("name",), **_BACKEND),
        percent=number("Share of the requests.", 0, 100, nullable=True),
        fraction=object_of(
            "Share of the requests.",
            ("numerator",),
            numerator=number("Of denominator."),
            denominator=number("The whole.", 1, default=100),
        ),
    ),
    requestRedirect=object_of(
        "Answer with a redirect.",
        scheme=text("http or https.", enum=["http", "https"]),
        hostname=_HOSTNAME,
        path=_PATH_MODIFIER,
        port=_PORT,
        statusCode={**number("Status code.", default=302), "enum": [301, 302, 303, 307, 308]},
    ),
    urlRewrite=object_of("Change the request.", hostname=_HOSTNAME, path=_PATH_MODIFIER),
    cors=object_of(
        "What scripts of other sites may do.",
        allowOrigins=list_of(
            "scheme://host[:port], a * in the host is any; * alone is every origin.",
            {"type": "string", "minLength": 1, "maxLength": 253},
            maxItems=64,
        ),
        allowCredentials=flag("May credentials be sent."),
        allowMethods=list_of("Methods, or *.", {"type": "string"}, maxItems=9),
        allowHeaders=list_of("Names, or *.", {"type": "string"}, maxItems=64),
        exposeHeaders=list_of("Names, or *.", {"type": "string"}, maxItems=64),
        maxAge=number("Seconds a preflight's answer may be kept.", 1, default=5),
    ),
    extensionRef=object_of(
        "Not supported.", ("group", "kind", "name"), group=text("Group."), kind=text("Kind."), name=text("Name.")
    ),
)
_MATCH = object_of(
    "All given conditions must hold.",
    path=object_of(
        "Of the path, without the query.",
        type=text("How to compare.", enum=["Exact", "PathPrefix", "RegularExpression"], default="PathPrefix"),
        value=text("Value.", maxLength=1024, default="/"),
    ),
    headers=_by_name("Of headers.", _value_match("One header.", pattern=_HEADER_NAME)),
    queryParams=_by_name("Of query parameters.", _value_match("One parameter.")),
    method=text("Method.", enum=_METHODS),
)
_ANY_PATH: Json = {"path": {"type": "PathPrefix", "value": "/"}}
_RULE = object_of(
    "One rule; of all rules of a Service the most exact match wins.",
    name=_name("For explanations."),
    matches=list_of("One must hold.", _MATCH, maxItems=64, default=[_ANY_PATH]),
    filters=list_of("Changes.", _FILTER, maxItems=16),
    backendRefs=list_of(
        "Weighted destinations.",
        object_of(
            "A destination and its share.",
            ("name",),
            **_BACKEND,
            weight=number("Share of the sum of the weights.", 0, 1_000_000, default=1),
            filters=list_of("Changes for this destination only.", _FILTER, maxItems=16),
        ),
        maxItems=16,
    ),
    timeouts=object_of(
        "Limits; 0s means none.",
        request=_duration("Of the whole request."),
        backendRequest=_duration("Of each try."),
    ),
    retry=object_of(
        "When to try again.",
        codes=list_of("Status codes.", number("Status code.", 400, 599)),
        attempts=number("Tries after the first.", nullable=True),
        backoff=_duration("Base interval between tries."),
    ),
    sessionPersistence=object_of(
        "One endpoint for all requests of a session.",
        sessionName=text("Of the cookie or header.", maxLength=128),
        absoluteTimeout=_duration("Of the whole session."),
        idleTimeout=_duration("Not supported."),
        type=text("What carries the session.", enum=["Cookie", "Header"], default="Cookie"),
        cookieConfig=object_of(
            "The cookie.",
            lifetimeType=text(
                "Until the browser is closed, or until absoluteTimeout.",
                enum=["Permanent", "Session"],
                default="Session",
            ),
        ),
    ),
)
HTTP_ROUTE = object_of(
    "Routes for Services. Source: Gateway API, HTTPRoute.",
    ("spec",),
    spec=object_of(
        "The rules.",
        parentRefs=list_of("Services whose clients are routed.", _PARENT_REF, maxItems=32),
        hostnames=list_of("Without meaning for Services.", _HOSTNAME, maxItems=16),
        rules=list_of("The rules.", _RULE, maxItems=16, default=[{"matches": [_ANY_PATH]}]),
    ),
    status=object_of(
        "Written by discovery.",
        parents=list_of(
            "Per parent and controller.",
            object_of(
                "What a controller made of it.",
                ("parentRef", "controllerName"),
                parentRef=_PARENT_REF,
                controllerName=text("Whose words these are."),
                conditions=list_of("Accepted, ResolvedRefs, Programmed.", CONDITION),
            ),
        ),
    ),
)
