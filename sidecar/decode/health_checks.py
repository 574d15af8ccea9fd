"""envoy.config.core.v3.HealthCheck -> HealthCheck. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from envoy.config.core.v3 import base_pb2

from mesh.errors import MeshError
from mesh.resilience.health_check import NO_TRAFFIC_INTERVAL_S, HealthCheck
from mesh.resilience.probe import DEFAULT_EXPECTED, USER_AGENT, HttpProbe, StatusRanges, TcpProbe
from mesh.routing.rewrite import mutate_lines
from mesh.xds.decode_headers import mutation
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, wrapped

_FIELDS: Final = (
    "timeout",
    "interval",
    "initial_jitter",
    "interval_jitter",
    "interval_jitter_percent",
    "unhealthy_threshold",
    "healthy_threshold",
    "reuse_connection",
    "http_health_check",
    "tcp_health_check",
    "no_traffic_interval",
    "no_traffic_healthy_interval",
    "unhealthy_interval",
    "unhealthy_edge_interval",
    "healthy_edge_interval",
    "always_log_health_check_failures",
    "always_log_health_check_success",
)
_HTTP_FIELDS: Final = (
    "host",
    "path",
    "receive",
    "response_buffer_size",
    "request_headers_to_add",
    "request_headers_to_remove",
    "expected_statuses",
    "retriable_statuses",
    "codec_client_type",
    "method",
)
_HTTP1: Final = 0
"""envoy.type.v3.CodecClientType.HTTP1."""


def decode_health_checks(checks: Iterable[Any], path: str) -> tuple[HealthCheck, ...]:
    """A cluster's checks. Raises DecodeError."""
    found = tuple(decode_health_check(one, f"{path}[{i}]") for i, one in enumerate(checks))
    if len(found) > 1:
        raise DecodeError(path, f"are {len(found)}; only one check per cluster is supported, as in Envoy")
    return found


def decode_health_check(check: Any, path: str) -> HealthCheck:
    """One check. Raises DecodeError."""
    kind = check.WhichOneof("health_checker")
    if kind in ("grpc_health_check", "custom_health_check"):
        raise DecodeError(
            join(path, kind), "this kind of check is not supported; want http_health_check or tcp_health_check"
        )
    if kind is None:
        raise DecodeError(path, "says nothing about what to check; want http_health_check or tcp_health_check")
    only(check, path, *_FIELDS)
    for name in ("timeout", "interval", "unhealthy_threshold", "healthy_threshold"):
        if not check.HasField(name):
            raise DecodeError(join(path, name), "is missing; it has no default")
    timeout, interval = seconds(check, "timeout"), seconds(check, "interval")
    assert timeout is not None
    assert interval is not None
    no_traffic = seconds(check, "no_traffic_interval")
    try:
        return HealthCheck(
            probe=_http(check.http_health_check, join(path, kind))
            if kind == "http_health_check"
            else _tcp(check.tcp_health_check, join(path, kind)),
            timeout_s=timeout,
            interval_s=interval,
            unhealthy_threshold=check.unhealthy_threshold.value,
            healthy_threshold=check.healthy_threshold.value,
            initial_jitter_s=seconds(check, "initial_jitter") or 0.0,
            interval_jitter_s=seconds(check, "interval_jitter") or 0.0,
            interval_jitter_percent=check.interval_jitter_percent,
            unhealthy_interval_s=seconds(check, "unhealthy_interval"),
            unhealthy_edge_interval_s=seconds(check, "unhealthy_edge_interval"),
            healthy_edge_interval_s=seconds(check, "healthy_edge_interval"),
            no_traffic_interval_s=NO_TRAFFIC_INTERVAL_S if no_traffic is None else no_traffic,
            no_traffic_healthy_interval_s=seconds(check, "no_traffic_healthy_interval"),
            reuses_connection=wrapped(check, "reuse_connection", True),
            logs_failures=check.always_log_health_check_failures,
            logs_passes=check.always_log_health_check_success,
        )
    except MeshError as exc:
        raise exc if isinstance(exc, DecodeError) else DecodeError(path, str(exc)) from exc


def _http(check: Any, path: str) -> HttpProbe:
    only(check, path, *_HTTP_FIELDS)
    if check.codec_client_type != _HTTP1:
        raise DecodeError(join(path, "codec_client_type"), "is not HTTP1; checks are made over HTTP/1.1 only")
    method = "GET" if not check.method else str(base_pb2.RequestMethod.Name(check.method))
    if any(c <= " " or c >= "\x7f" for c in check.host):
        raise DecodeError(join(path, "host"), f'"{check.host}" is not a host name')
    lines = mutate_lines([USER_AGENT], (mutation(check, path, "request"),))
    return HttpProbe(
        path=str(check.path),
        method=method.encode(),
        host=str(check.host),
        lines=tuple(lines),
        expected=_ranges(check.expected_statuses) or DEFAULT_EXPECTED,
        retriable=_ranges(check.retriable_statuses),
        receive=tuple(_payload(one, f"{join(path, 'receive')}[{i}]") for i, one in enumerate(check.receive)),
        response_buffer_bytes=wrapped(check, "response_buffer_size", 1024),
    )


def _tcp(check: Any, path: str) -> TcpProbe:
    only(check, path, "send", "receive")
    return TcpProbe(
        send=_payload(check.send, join(path, "send")) if check.HasField("send") else b"",
        receive=tuple(_payload(one, f"{join(path, 'receive')}[{i}]") for i, one in enumerate(check.receive)),
    )


def _ranges(ranges: Iterable[Any]) -> StatusRanges:
    return tuple((int(one.start), int(one.end)) for one in ranges)


def _payload(payload: Any, path: str) -> bytes:
    """Bytes, written as hexadecimal digits or in binary."""
    if payload.WhichOneof("payload") == "binary":
        return bytes(payload.binary)
    try:
        found = bytes.fromhex(payload.text)
    except ValueError as exc:
        raise DecodeError(join(path, "text"), f'"{payload.text}" is not hexadecimal digits, such as 504f4e47') from exc
    if not found:
        raise DecodeError(path, "is empty; want hexadecimal text or binary")
    return found
