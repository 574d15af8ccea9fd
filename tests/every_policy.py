"""One VirtualService and four DestinationRules that use every field; for services web, ring, maglev and slow."""

from typing import Any

from mesh.api.resources import Json


def to(host: str, subset: str = "") -> Json:
    return {"destination": {"host": host, **({"subset": subset} if subset else {})}}


def prefix(path: str, **more: Any) -> list[Json]:
    return [{"name": path.strip("/"), "uri": {"prefix": path}, **more}]


ROUTES: list[Json] = [
    {
        "name": "cors",
        "match": prefix("/cors", statPrefix="cors"),
        "route": [to("web")],
        "corsPolicy": {
            "allowOrigins": [{"exact": "https://a.example"}, {"prefix": "https://b."}, {"regex": "https://c[0-9]"}],
            "allowMethods": ["GET", "PUT"],
            "allowHeaders": ["x-one"],
            "exposeHeaders": ["x-two"],
            "maxAge": "24h",
            "allowCredentials": True,
            "unmatchedPreflights": "IGNORE",
        },
    },
    {
        "match": prefix("/fault"),
        "route": [to("web")],
        "fault": {
            "delay": {"fixedDelay": "50ms", "percentage": {"value": 100}},
            "abort": {"httpStatus": 418, "percentage": {"value": 100}},
        },
    },
    {
        "match": prefix("/mirror"),
        "route": [to("web")],
        "mirrors": [
            {"destination": {"host": "ring"}},
            {"destination": {"host": "slow"}, "percentage": {"value": 0.01}},
        ],
    },
    {
        "match": [{"uri": {"prefix": "/Again"}, "ignoreUriCase": True}],
        "route": [to("web", "all")],
        "rewrite": {"uriRegexRewrite": {"match": "^/(?i:again)/.*$", "rewrite": "/again"}, "authority": "other"},
        "timeout": "5s",
        "retries": {
            "attempts": 3,
            "perTryTimeout": "2s",
            "retryOn": "5xx,gateway-error,reset,connect-failure,envoy-ratelimited,retriable-4xx,refused-stream,"
            "retriable-headers,reset-before-request,http3-post-connect-failure,cancelled,503",
            "retryRemoteLocalities": False,
            "retryIgnorePreviousHosts": False,
            "backoff": "5ms",
        },
    },
    {"match": prefix("/away"), "redirect": {"scheme": "https", "derivePort": "FROM_REQUEST_PORT", "redirectCode": 308}},
    {"match": prefix("/said"), "directResponse": {"status": 299, "body": {"bytes": "aGk="}}},
    {
        "match": [
            {
                "uri": {"regex": "/x[0-9]+"},
                "method": {"exact": "GET"},
                "scheme": {"exact": "http"},
                "authority": {"prefix": "web"},
                "headers": {"x-a": {"regex": "1|2"}, "x-b": {}},
                "withoutHeaders": {"x-c": {}},
                "queryParams": {"q": {"prefix": "v"}},
                "port": 80,
                "gateways": ["mesh"],
            }
        ],
        "route": [{**to("web", "all"), "headers": {"response": {"set": {"x-seen": "yes"}}}}],
    },
    {"route": [to("web")]},
]
OUTLIER: Json = {
    "splitExternalLocalOriginErrors": True,
    "consecutiveLocalOriginFailures": 4,
    "consecutiveGatewayErrors": 3,
    "consecutive5xxErrors": 7,
    "interval": "5s",
    "baseEjectionTime": "7s",
    "maxEjectionPercent": 50,
    "minHealthPercent": 10,
}
POOL: Json = {
    "tcp": {
        "maxConnections": 100,
        "connectTimeout": "2s",
        "tcpKeepalive": {"probes": 3, "time": "60s", "interval": "10s"},
        "idleTimeout": "1h",
        "maxConnectionDuration": "2h",
    },
    "http": {
        "http1MaxPendingRequests": 10,
        "http2MaxRequests": 90,
        "maxRequestsPerConnection": 1000,
        "maxRetries": 5,
        "idleTimeout": "30s",
        "h2UpgradePolicy": "DO_NOT_UPGRADE",
        "useClientProtocol": True,
    },
}
FAILOVER: Json = {"simple": "ROUND_ROBIN", "localityLbSetting": {"failover": [{"from": "north", "to": "south"}]}}
DISTRIBUTE: Json = {"distribute": [{"from": "north/*", "to": {"north/n1/*": 80, "south": 20}}]}
RULES: dict[str, tuple[Json, dict[str, str]]] = {
    "web": (
        {
            "trafficPolicy": {"outlierDetection": OUTLIER, "connectionPool": POOL, "loadBalancer": FAILOVER},
            "subsets": [{"name": "all", "labels": {"app": "web"}}],
        },
        {"meshwork.dev/health-check": '{"path": "/healthz", "interval": "1s", "timeout": "500ms"}'},
    ),
    "ring": (
        {"trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user", "ringHash": {}}}}},
        {"meshwork.dev/health-check": "{}"},
    ),
    "maglev": (
        {
            "trafficPolicy": {
                "loadBalancer": {
                    "consistentHash": {
                        "httpCookie": {"name": "who", "path": "/", "ttl": "0s"},
                        "maglev": {"tableSize": 251},
                    },
                    "localityLbSetting": DISTRIBUTE,
                }
            }
        },
        {},
    ),
    "slow": (
        {
            "trafficPolicy": {
                "loadBalancer": {
                    "warmup": {"duration": "30s", "minimumPercent": 20, "aggression": 2},
                    "localityLbSetting": {"failoverPriority": ["topology.kubernetes.io/region", "tier=gold"]},
                },
                "outlierDetection": {},
                "retryBudget": {"percent": 25, "minRetryConcurrency": 4},
            }
        },
        {"meshwork.dev/lb": "PEAK_EWMA"},
    ),
}
