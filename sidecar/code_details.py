"""Response code details: Envoy's one word for why a request ended as it did, next to our own sentence. Pure.

Source: Envoy, StreamInfo ResponseCodeDetails (`%RESPONSE_CODE_DETAILS%`).
"""

from sidecar import flags as flag

VIA_UPSTREAM = "via_upstream"
DIRECT_RESPONSE = "direct_response"
TRY_TIMEOUT = "upstream_per_try_timeout"
TRY_IDLE_TIMEOUT = "upstream_per_try_idle_timeout"

_BY_FLAG = {
    flag.NO_ROUTE: "route_not_found",
    flag.NO_CLUSTER: "cluster_not_found",
    flag.NO_HEALTHY_UPSTREAM: "no_healthy_upstream",
    flag.UPSTREAM_TIMEOUT: "response_timeout",
    flag.UPSTREAM_MAX_DURATION: "upstream_max_stream_duration_reached",
    flag.DURATION_TIMEOUT: "max_duration_timeout",
    flag.STREAM_IDLE_TIMEOUT: "stream_idle_timeout",
    flag.DOWNSTREAM_CLOSED: "downstream_remote_disconnect",
    flag.DOWNSTREAM_PROTOCOL_ERROR: "http1.codec_error",
    flag.RATE_LIMITED: "local_rate_limited",
    flag.FAULT_INJECTED: "fault_filter_abort",
}
_RESETS = {
    flag.UPSTREAM_CONNECT_FAILURE: "remote_connection_failure",
    flag.UPSTREAM_CLOSED: "connection_termination",
    flag.UPSTREAM_PROTOCOL_ERROR: "protocol_error",
    flag.UPSTREAM_OVERFLOW: "overflow",
}


def code_details(flags: str, *, endpoint: str, has_responded: bool) -> str:
    """The word for a request that ended with `flags`. `endpoint` is empty when no endpoint was chosen."""
    for one in flags.split(","):
        if one in _RESETS:
            when = "after" if has_responded else "before"
            return f"upstream_reset_{when}_response_started{{{_RESETS[one]}}}"
        if one in _BY_FLAG:
            return _BY_FLAG[one]
    return VIA_UPSTREAM if endpoint else DIRECT_RESPONSE
