"""The schemas of Meshwork's own kinds and of the Istio kinds it carries out, as OpenAPI v3.

They name exactly the fields that are carried out; a test holds them equal to the typed views in `mesh.api.node` and
`mesh.api.networking`.
"""

from typing import Any

from mesh.api.resources import DESTINATION_RULES, HOST_IMAGES, VIRTUAL_SERVICES, Json

_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+$"


def _object(description: str, required: tuple[str, ...] = (), /, **properties: Json) -> Json:
    schema: Json = {"type": "object", "description": description, "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


def _number(description: str, low: int = 0, high: int = 2**31 - 1, **more: Any) -> Json:
    return {"type": "integer", "format": "int64", "minimum": low, "maximum": high, "description": description, **more}


def _flag(description: str) -> Json:
    return {"type": "boolean", "description": description}


def _list(description: str, items: Json, **more: Any) -> Json:
    return {"type": "array", "description": description, "items": items, **more}


def _map(description: str, values: Json) -> Json:
    return {"type": "object", "description": description, "additionalProperties": values}


def _duration(description: str) -> Json:
    return _text(f"{description} A duration such as 1.5s, 250ms or 1h10m.", pattern=_DURATION_PATTERN)


_TEXTS = {"type": "string"}
_ENV = _object("A plain environment variable.", ("name",), name=_text("Name."), value=_text("Value."))
_HOST_IMAGE = _object(
    "A command of the host that stands in for container images.",
    ("spec",),
    spec=_object(
        "Which images, and what runs instead.",
        ("match",),
        match=_list(
            "Image references; * stands for any run of characters.", _text("Pattern.", minLength=1), minItems=1
        ),
        command=_list("As an image's ENTRYPOINT; a container's command replaces it.", _TEXTS),
        args=_list("As an image's CMD; a container's args replaces it.", _TEXTS),
        env=_list("As an image's ENV; the container's own win.", _ENV),
        workingDir=_text("As an image's WORKDIR."),
    ),
)

_CONDITION = _object(
    "What discovery made of the policy.",
    ("type", "status"),
    type=_text("Accepted or Programmed."),
    status=_text("True, False or Unknown."),
    reason=_text("One word."),
    message=_text("One sentence."),
    observedGeneration=_number("The generation this is about.", high=2**63 - 1),
    lastTransitionTime=_text("When status changed last.", format="date-time"),
    lastUpdateTime=_text("When this was written last.", format="date-time"),
    lastHeartbeatTime=_text("Unused by policies.", format="date-time"),
    lastProbeTime=_text("Unused by policies.", format="date-time"),
)
_STATUS = _object(
    "Written by discovery.",
    observedGeneration=_number("The newest generation seen.", high=2**63 - 1),
    conditions=_list("Accepted, Programmed.", _CONDITION),
)

_STRING_MATCH = _object(
    "Exactly one of exact, prefix and regex.",
    exact=_text("The whole value."),
    prefix=_text("The value starts with this."),
    regex=_text("RE2 expression for the whole value."),
)
_PORT = _number("Port number.", 1, 65535)
_PORT_SELECTOR = _object("A port of the service.", ("number",), number=_PORT)
_DESTINATION = _object(
    "Where requests go.",
    ("host",),
    host=_text("Service: short name, svc.ns or fully qualified.", minLength=1),
    subset=_text("Subset of the host's DestinationRule."),
    port=_PORT_SELECTOR,
)
_HEADER_OPERATIONS = _object(
    "Changes to headers.",
    set=_map("Overwrite.", _TEXTS),
    add=_map("Append.", _TEXTS),
    remove=_list("Remove.", _TEXTS),
)
_HEADERS = _object("Changes to headers.", request=_HEADER_OPERATIONS, response=_HEADER_OPERATIONS)
_MATCH = _object(
    "All given conditions must hold.",
    name=_text("For explanations."),
    uri=_STRING_MATCH,
    scheme=_STRING_MATCH,
    method=_STRING_MATCH,
    authority=_STRING_MATCH,
    headers=_map("Lower-case header name to match; {} asks only for presence.", _STRING_MATCH),
    withoutHeaders=_map("None of these may match.", _STRING_MATCH),
    queryParams=_map("Query parameter to match.", _STRING_MATCH),
    port=_PORT,
    sourceLabels=_map("Labels of the client's pod.", _TEXTS),
    sourceNamespace=_text("Namespace of the client's pod."),
    ignoreUriCase=_flag("Compare exact and prefix uris without case."),
)
_HTTP_ROUTE = _object(
    "One rule; the first that matches wins.",
    name=_text("For explanations, logs and metrics."),
    match=_list("One must hold; none means every request.", _MATCH),
    route=_list(
        "Weighted destinations.",
        _object(
            "A destination and its share.",
            ("destination",),
            destination=_DESTINATION,
            weight=_number("Share of the requests; the weights of a rule sum to 100.", 0, 2**31 - 1),
            headers=_HEADERS,
        ),
    ),
    redirect=_object(
        "Answer with a redirect.",
        uri=_text("New path."),
        authority=_text("New host."),
        port=_PORT,
        scheme=_text("http or https.", enum=["http", "https"]),
        redirectCode={**_number("Status code."), "enum": [301, 302, 303, 307, 308]},
    ),
    directResponse=_object(
        "Answer without an upstream.",
        ("status",),
        status=_number("Status code.", 200, 599),
        body=_object("One of string and bytes.", string=_text("Text."), bytes=_text("Base64.", format="byte")),
    ),
    rewrite=_object(
        "Change the request.", uri=_text("Replaces the matched prefix or path."), authority=_text("New host.")
    ),
    timeout=_duration("Of the whole request, retries included; 0s means none."),
    retries=_object(
        "When to try again.",
        attempts=_number("Retries after the first try; 0 turns them off.", 0, 100),
        perTryTimeout=_duration("Of each try."),
        retryOn=_text("Comma-separated conditions and status codes."),
        retryRemoteLocalities=_flag("May a retry go to another locality."),
    ),
    headers=_HEADERS,
)
_VIRTUAL_SERVICE = _object(
    "Routes for hosts. Source: Istio, VirtualService.",
    ("spec",),
    spec=_object(
        "The rules.",
        ("hosts",),
        hosts=_list("Names the rules apply to.", _text("Host.", minLength=1), minItems=1),
        gateways=_list('Where the rules apply; "mesh" is every sidecar.', _TEXTS),
        http=_list("HTTP rules, in order.", _HTTP_ROUTE),
        exportTo=_list("Namespaces that see this: * or .", _TEXTS),
    ),
    status=_STATUS,
)

_LOAD_BALANCER = _object(
    "How an endpoint is chosen.",
    simple=_text(
        "Algorithm.",
        enum=["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"],
        default="LEAST_REQUEST",
    ),
)
_CONNECTION_POOL = _object(
    "Limits per sidecar and host.",
    tcp=_object(
        "For connections.",
        maxConnections=_number("Open connections.", 1),
        connectTimeout=_duration("To connect."),
        idleTimeout=_duration("Without bytes, before a connection is closed."),
    ),
    http=_object(
        "For requests.",
        http1MaxPendingRequests=_number("Requests that wait for a connection."),
        http2MaxRequests=_number("Active requests, HTTP/1.1 too."),
        maxRequestsPerConnection=_number("Then the connection is closed; 0 means no limit."),
        maxRetries=_number("Retries at one time."),
        idleTimeout=_duration("Without requests, before a connection is closed."),
    ),
)
_PERCENT = _number("Percent.", 0, 100)
_OUTLIER_DETECTION = _object(
    "When an endpoint is ejected. Source: Envoy outlier detection.",
    consecutive5xxErrors=_number("Answers 5xx in a row; 0 turns this off.", nullable=True),
    consecutiveGatewayErrors=_number("Answers 502, 503, 504 in a row; 0 turns this off.", nullable=True),
    splitExternalLocalOriginErrors=_flag("Count connection failures apart."),
    consecutiveLocalOriginFailures=_number("Connection failures in a row.", nullable=True),
    interval=_duration("Between ejection sweeps."),
    baseEjectionTime=_duration("Of the first ejection; grows with every further one."),
    maxEjectionPercent=_PERCENT,
    minHealthPercent=_PERCENT,
)
_POLICY = {"loadBalancer": _LOAD_BALANCER, "connectionPool": _CONNECTION_POOL, "outlierDetection": _OUTLIER_DETECTION}
_PORT_POLICY = _object("One port's policy.", ("port",), port=_PORT_SELECTOR, **_POLICY)
_TRAFFIC_POLICY = _object(
    "How requests reach the endpoints.",
    (),
    **_POLICY,
    portLevelSettings=_list("Per port.", _PORT_POLICY),
)
_DESTINATION_RULE = _object(
    "Policy of a host, and its subsets. Source: Istio, DestinationRule.",
    ("spec",),
    spec=_object(
        "The policy.",
        ("host",),
        host=_text("Service: short name, svc.ns or fully qualified.", minLength=1),
        trafficPolicy=_TRAFFIC_POLICY,
        subsets=_list(
            "Named parts of the endpoints.",
            _object(
                "Endpoints whose pods carry all these labels.",
                ("name",),
                name=_text("Name.", minLength=1),
                labels=_map("Labels.", _TEXTS),
                trafficPolicy=_TRAFFIC_POLICY,
            ),
            **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        exportTo=_list("Namespaces that see this: * or .", _TEXTS),
    ),
    status=_STATUS,
)

OWN_SCHEMAS: dict[tuple[str, str], Json] = {
    HOST_IMAGES.key: _HOST_IMAGE,
    VIRTUAL_SERVICES.key: _VIRTUAL_SERVICE,
    DESTINATION_RULES.key: _DESTINATION_RULE,
}
"""(group, plural) -> openAPIV3Schema; metadata, apiVersion and kind are implied."""
