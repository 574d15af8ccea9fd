"""Response flags: why a request ended as it did, in Envoy's letters."""

NONE = ""
NO_ROUTE = "NR"
NO_CLUSTER = "NC"
NO_HEALTHY_UPSTREAM = "UH"
UPSTREAM_CONNECT_FAILURE = "UF"
UPSTREAM_OVERFLOW = "UO"
UPSTREAM_CLOSED = "UC"
UPSTREAM_TIMEOUT = "UT"
UPSTREAM_PROTOCOL_ERROR = "UPE"
RETRIES_EXHAUSTED = "URX"
DOWNSTREAM_CLOSED = "DC"
DOWNSTREAM_PROTOCOL_ERROR = "DPE"
DELAY_INJECTED = "DI"
FAULT_INJECTED = "FI"
RATE_LIMITED = "RL"
STREAM_IDLE_TIMEOUT = "SI"
"""Envoy's letters for a stream idle timeout."""


def join(first: str, second: str) -> str:
    """Two flags as one text."""
    return f"{first},{second}" if first and second else first or second
