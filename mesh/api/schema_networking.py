"""The schemas of VirtualService and DestinationRule, as OpenAPI v3. Source: istio.io/docs/reference/config/networking."""

from mesh.api.schema_build import TEXTS, duration, flag, list_of, map_of, number, object_of, text

CONDITION = object_of(
    "What discovery made of the policy.",
    ("type", "status"),
    type=text("Accepted or Programmed."),
    status=text("True, False or Unknown."),
    reason=text("One word."),
    message=text("One sentence."),
    observedGeneration=number("The generation this is about.", high=2**63 - 1),
    lastTransitionTime=text("When status changed last.", format="date-time"),
    lastUpdateTime=text("When this was written last.", format="date-time"),
    lastHeartbeatTime=text("Unused by policies.", format="date-time"),
    lastProbeTime=text("Unused by policies.", format="date-time"),
)
POLICY_STATUS = object_of(
    "Written by discovery.",
    observedGeneration=number("The newest generation seen.", high=2**63 - 1),
    conditions=list_of("Accepted, Programmed.", CONDITION),
)

_STRING_MATCH = object_of(
    "Exactly one of exact, prefix and regex.",
    exact=text("The whole value."),
    prefix=text("The value starts with this."),
    regex=text("RE2 expression for the whole value."),
)
_PORT = number("Port number.", 1, 65535)
_PORT_SELECTOR = object_of("A port of the service.", ("number",), number=_PORT)
_DESTINATION = object_of(
    "Where requests go.",
    ("host",),
    host=text("Service: short name, svc.ns or fully qualified.", minLength=1),
    subset=text("Subset of the host's DestinationRule."),
    port=_PORT_SELECTOR,
)
_HEADER_OPERATIONS = object_of(
    "Changes to headers.",
    set=map_of("Overwrite.", TEXTS),
    add=map_of("Append.", TEXTS),
    remove=list_of("Remove.", TEXTS),
)
_HEADERS = object_of("Changes to headers.", request=_HEADER_OPERATIONS, response=_HEADER_OPERATIONS)
_MATCH = object_of(
    "All given conditions must hold.",
    name=text("For explanations."),
    uri=_STRING_MATCH,
    scheme=_STRING_MATCH,
    method=_STRING_MATCH,
    authority=_STRING_MATCH,
    headers=map_of("Lower-case header name to match; {} asks only for presence.", _STRING_MATCH),
    withoutHeaders=map_of("None of these may match.", _STRING_MATCH),
    queryParams=map_of("Query parameter to match.", _STRING_MATCH),
    port=_PORT,
    sourceLabels=map_of("Labels of the client's pod.", TEXTS),
    sourceNamespace=text("Namespace of the client's pod."),
    gateways=list_of('Where the match applies; "mesh" is every sidecar.', TEXTS),
    ignoreUriCase=flag("Compare exact and prefix uris without case."),
    statPrefix=text("Name of the route in statistics."),
)
_PERCENTAGE = object_of(
    "A share of the requests.",
    value={"type": "number", "minimum": 0, "maximum": 100, "description": "Percent, such as 0.1."},
)
_CORS_POLICY = object_of(
    "What scripts of other sites may do. Source: Fetch, CORS protocol.",
    allowOrigins=list_of("Origins that may call; one must match.", _STRING_MATCH),
    allowMethods=list_of("access-control-allow-methods.", TEXTS),
    allowHeaders=list_of("access-control-allow-headers.", TEXTS),
    exposeHeaders=list_of("access-control-expose-headers.", TEXTS),
    maxAge=duration("How long a preflight's answer may be kept."),
    allowCredentials=flag("May credentials be sent."),
    unmatchedPreflights=text(
        "Preflights of origins that do not match.", enum=["UNSPECIFIED", "FORWARD", "IGNORE"], default="UNSPECIFIED"
    ),
)
_FAULT = object_of(
    "Trouble made on purpose.",
    delay=object_of("Wait before the request is sent on.", fixedDelay=duration("How long."), percentage=_PERCENTAGE),
    abort=object_of(
        "Answer instead of sending the request on.",
        httpStatus=number("Status code.", 200, 599),
        grpcStatus=text("Not supported."),
        percentage=_PERCENTAGE,
    ),
)
_MIRROR = object_of("A copy of requests; its answer is dropped.", destination=_DESTINATION, percentage=_PERCENTAGE)
_HTTP_ROUTE = object_of(
    "One rule; the first that matches wins.",
    name=text("For explanations, logs and metrics."),
    match=list_of("One must hold; none means every request.", _MATCH),
    route=list_of(
        "Weighted destinations.",
        object_of(
            "A destination and its share.",
            ("destination",),
            destination=_DESTINATION,
            weight=number("Share of the requests; the weights of a rule sum to 100.", 0, 2**31 - 1),
            headers=_HEADERS,
        ),
    ),
    redirect=object_of(
        "Answer with a redirect.",
        uri=text("New path."),
        authority=text("New host."),
        port=_PORT,
        derivePort=text("Instead of port.", enum=["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]),
        scheme=text("http or https.", enum=["http", "https"]),
        redirectCode={**number("Status code."), "enum": [301, 302, 303, 307, 308]},
    ),
    directResponse=object_of(
        "Answer without an upstream.",
        ("status",),
        status=number("Status code.", 200, 599),
        body=object_of("One of string and bytes.", string=text("Text."), bytes=text("Base64.", format="byte")),
    ),
    delegate=object_of("Not supported.", name=text("Name."), namespace=text("Namespace.")),
    rewrite=object_of(
        "Change the request.",
        uri=text("Replaces the matched prefix or path."),
        authority=text("New host."),
        uriRegexRewrite=object_of(
            "Replace what a regex finds in the path.",
            match=text("RE2 expression."),
            rewrite=text("Replacement; \\1 is the first group."),
        ),
    ),
    timeout=duration("Of the whole request, retries included; 0s means none."),
    retries=object_of(
        "When to try again.",
        attempts=number("Retries after the first try; 0 turns them off.", 0, 100),
        perTryTimeout=duration("Of each try."),
        retryOn=text("Comma-separated conditions and status codes."),
        retryRemoteLocalities=flag("May a retry go to another locality."),
        retryIgnorePreviousHosts=flag("Prefer hosts that were not tried yet; true when left out."),
        backoff=duration("Base interval between tries."),
    ),
    fault=_FAULT,
    mirror=_DESTINATION,
    mirrorPercentage=_PERCENTAGE,
    mirrors=list_of("Copies of requests; their answers are dropped.", _MIRROR),
    corsPolicy=_CORS_POLICY,
    headers=_HEADERS,
)
VIRTUAL_SERVICE = object_of(
    "Routes for hosts. Source: Istio, VirtualService.",
    ("spec",),
    spec=object_of(
        "The rules.",
        ("hosts",),
        hosts=list_of("Names the rules apply to.", text("Host.", minLength=1), minItems=1),
        gateways=list_of('Where the rules apply; "mesh" is every sidecar.', TEXTS),
        http=list_of("HTTP rules, in order.", _HTTP_ROUTE),
        exportTo=list_of("Namespaces that see this: * or .", TEXTS),
    ),
    status=POLICY_STATUS,
)

_TABLE_SIZE = number("Entries.", 1, 8388608, nullable=True)
_LOAD_BALANCER = object_of(
    "How an endpoint is chosen.",
    simple=text(
        "Algorithm.",
        enum=["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PASSTHROUGH"],
    ),
    consistentHash=object_of(
        "The same key goes to the same endpoint. Exactly one key, at most one table.",
        httpHeaderName=text("Key: this header."),
        httpCookie=object_of(
            "Key: this cookie.",
            ("name",),
            name=text("Name.", minLength=1),
            path=text("Path of a cookie that is made."),
            ttl=duration("Make the cookie if it is missing; 0s for one of the session.", nullable=True),
        ),
        useSourceIp=flag("Key: the client's address."),
        httpQueryParameterName=text("Key: this query parameter."),
        ringHash=object_of("Ketama ring.", minimumRingSize=_TABLE_SIZE),
        maglev=object_of("Maglev table.", tableSize=number("Entries, a prime.", 1, 5000011, nullable=True)),
        minimumRingSize=_TABLE_SIZE,
    ),
    localityLbSetting=object_of(
        "Prefer endpoints near the client.",
        distribute=list_of(
            "Shares of localities.",
            object_of(
                "From one locality to others.",
                **{
                    "from": text("region/zone/subzone; * at the end stands for any."),
                    "to": map_of("Locality to percent; they sum to 100.", number("Percent.", 0, 100)),
                },
            ),
        ),
        failover=list_of(
            "Which region takes over.",
            object_of(
                "One region's.", **{"from": text("Region of the client."), "to": text("Region that takes over.")}
            ),
        ),
        failoverPriority=list_of("Labels that endpoints should share with the client, most important first.", TEXTS),
        enabled=flag("false turns it off."),
    ),
    warmupDurationSecs=duration("The older form of warmup.duration."),
    warmup=object_of(
        "New endpoints get little at first.",
        ("duration",),
        duration=duration("Until the full share."),
        minimumPercent={"type": "number", "minimum": 0, "maximum": 100, "description": "Share at the start; 10."},
        aggression={"type": "number", "minimum": 1, "description": "1 grows linearly, more grows faster at first."},
    ),
)
_CONNECTION_POOL = object_of(
    "Limits per sidecar and host.",
    tcp=object_of(
        "For connections.",
        maxConnections=number("Open connections.", 1),
        connectTimeout=duration("To connect."),
        tcpKeepalive=object_of(
            "SO_KEEPALIVE.",
            probes=number("Without an answer, before the connection is dead.", 1, 127, nullable=True),
            time=duration("Idle before the first probe."),
            interval=duration("Between probes."),
        ),
        idleTimeout=duration("Without bytes, before a connection is closed."),
        maxConnectionDuration=duration("Then a connection is closed."),
    ),
    http=object_of(
        "For requests.",
        http1MaxPendingRequests=number("Requests that wait for a connection."),
        http2MaxRequests=number("Active requests, HTTP/1.1 too."),
        maxRequestsPerConnection=number("Then the connection is closed; 0 means no limit."),
        maxRetries=number("Retries at one time."),
        idleTimeout=duration("Without requests, before a connection is closed."),
        h2UpgradePolicy=text("HTTP/2 upstream.", enum=["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]),
        useClientProtocol=flag("Upstream as downstream, which is HTTP/1.x anyway."),
    ),
)
_PERCENT = number("Percent.", 0, 100)
_OUTLIER_DETECTION = object_of(
    "When an endpoint is ejected. Source: Envoy outlier detection.",
    consecutive5xxErrors=number("Answers 5xx in a row; 0 turns this off.", nullable=True),
    consecutiveGatewayErrors=number("Answers 502, 503, 504 in a row; 0 turns this off.", nullable=True),
    splitExternalLocalOriginErrors=flag("Count connection failures apart."),
    consecutiveLocalOriginFailures=number("Connection failures in a row.", nullable=True),
    interval=duration("Between ejection sweeps."),
    baseEjectionTime=duration("Of the first ejection; grows with every further one."),
    maxEjectionPercent=_PERCENT,
    minHealthPercent=_PERCENT,
)
_RETRY_BUDGET = object_of(
    "How many retries may be in flight.",
    percent={"type": "number", "minimum": 0, "maximum": 100, "description": "Of the active requests; 20."},
    minRetryConcurrency=number("Always allowed; 10.", nullable=True),
)
_POLICY = {
    "loadBalancer": _LOAD_BALANCER,
    "connectionPool": _CONNECTION_POOL,
    "outlierDetection": _OUTLIER_DETECTION,
    "retryBudget": _RETRY_BUDGET,
}
_PORT_POLICY = object_of("One port's policy.", ("port",), port=_PORT_SELECTOR, **_POLICY)
_TRAFFIC_POLICY = object_of(
    "How requests reach the endpoints.",
    (),
    **_POLICY,
    portLevelSettings=list_of("Per port.", _PORT_POLICY),
)
DESTINATION_RULE = object_of(
    "Policy of a host, and its subsets. Source: Istio, DestinationRule.",
    ("spec",),
    spec=object_of(
        "The policy.",
        ("host",),
        host=text("Service: short name, svc.ns or fully qualified.", minLength=1),
        trafficPolicy=_TRAFFIC_POLICY,
        subsets=list_of(
            "Named parts of the endpoints.",
            object_of(
                "Endpoints whose pods carry all these labels.",
                ("name",),
                name=text("Name.", minLength=1),
                labels=map_of("Labels.", TEXTS),
                trafficPolicy=_TRAFFIC_POLICY,
            ),
            **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        exportTo=list_of("Namespaces that see this: * or .", TEXTS),
    ),
    status=POLICY_STATUS,
)
