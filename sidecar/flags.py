"""Response flags: why a request ended as it did, in Envoy's letters.

Not here, because nothing sets them: UR (a stream reset by the peer; HTTP/1.1 has no such thing, a closed connection is UC), LH (Envoy's
health check filter), OM (no overload manager), NFCF, IH, DF (no such features).
"""

NONE = ""
NO_ROUTE = "NR"
NO_CLUSTER = "NC"
NO_HEALTHY_UPSTREAM = "UH"
UPSTREAM_CONNECT_FAILURE = "UF"
UPSTREAM_OVERFLOW = "UO"
UPSTREAM_CLOSED = "UC"
UPSTREAM_TIMEOUT = "UT"
UPSTREAM_PROTOCOL_ERROR = "UPE"
UPSTREAM_MAX_DURATION = "UMSDR"
RETRIES_EXHAUSTED = "URX"
DOWNSTREAM_CLOSED = "DC"
DOWNSTREAM_PROTOCOL_ERROR = "DPE"
DELAY_INJECTED = "DI"
FAULT_INJECTED = "FI"
RATE_LIMITED = "RL"
STREAM_IDLE_TIMEOUT = "SI"
"""Envoy's letters for a stream idle timeout."""
DURATION_TIMEOUT = "DT"
"""The route's max_stream_duration is over."""


def join(first: str, second: str) -> str:
    """Two flags as one text."""
    return f"{first},{second}" if first and second else first or second
