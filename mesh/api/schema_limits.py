"""The schema of TrafficLimit, as OpenAPI v3."""

from mesh.api.resources import Json
from mesh.api.schema_build import TEXTS, duration, flag, map_of, number, object_of
from mesh.api.schema_networking import POLICY_STATUS

_STATUS_CODE = number("Status code of refused requests.", 400, 599)


def _percent(description: str) -> Json:
    return {"type": "number", "minimum": 0, "maximum": 100, "nullable": True, "description": description}


TRAFFIC_LIMIT = object_of(
    "How much a pod's own sidecar lets in.",
    ("spec",),
    spec=object_of(
        "One of the two limits, or both.",
        selector=object_of("Which pods of the namespace.", matchLabels=map_of("All must be there.", TEXTS)),
        port=number("Of the container; every HTTP port when left out.", 1, 65535),
        localRateLimit=object_of(
            "A token bucket of each sidecar.",
            ("maxTokens", "fillInterval"),
            maxTokens=number("What a full bucket holds.", 1),
            tokensPerFill=number("What each fill adds; 1 when left out.", 1),
            fillInterval=duration("Between fills, at least 50ms."),
            status=_STATUS_CODE,
        ),
        adaptiveConcurrency=object_of(
            "Requests in flight, limited by how latency grows. Source: Envoy, adaptive concurrency.",
            enabled=flag("false: measured, but nothing is refused."),
            percentile=_percent("Which latency counts; 50."),
            maxConcurrencyLimit=number("The limit never exceeds it; 1000.", 1, nullable=True),
            updateInterval=duration("Between changes of the limit; 100ms."),
            minRTTInterval=duration("Between measurements of the latency without queueing; 60s."),
            minRTTRequests=number("That one measurement takes; 50.", 1, nullable=True),
            minConcurrency=number("The limit while measuring; 3.", 1, nullable=True),
            jitterPercent=_percent("Of the interval between measurements; 15."),
            bufferPercent=_percent("How much slower is still as good; 25."),
            status=_STATUS_CODE,
        ),
    ),
    status=POLICY_STATUS,
)
