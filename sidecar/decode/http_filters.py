"""The HTTP connection manager -> HttpFilter. Pure."""

from typing import Any, Final

from envoy.config.trace.v3 import opentelemetry_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2

from mesh.routing.table import RouteTable
from mesh.xds.decode_routes import decode_route_table
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, unpack, wrapped
from sidecar.config import HttpFilter, Tracing
from sidecar.decode.access_logs import decode_access_log

_SUPPORTED: Final = (
    "stat_prefix",
    "rds",
    "route_config",
    "http_filters",
    "tracing",
    "access_log",
    "use_remote_address",
    "generate_request_id",
    "preserve_external_request_id",
    "server_name",
    "upgrade_configs",
    "common_http_protocol_options",
    "stream_idle_timeout",
    "request_headers_timeout",
    "max_request_headers_kb",
)
_HARMLESS: Final = (
    "codec_type",
    "http_protocol_options",
    "http2_protocol_options",
    "drain_timeout",
    "delayed_close_timeout",
    "internal_address_config",
    "set_current_client_cert_details",
    "stream_error_on_invalid_http_message",
)
"""Accepted: they concern what this proxy does not do (HTTP/2, client certificates), or how patiently it closes."""
_DEFAULTS: Final = HttpFilter()


def decode_http_filter(manager: Any, path: str) -> HttpFilter:
    """An HttpConnectionManager. Raises DecodeError."""
    only(manager, path, *_SUPPORTED, *_HARMLESS)
    if manager.codec_type not in (0, 1):
        raise DecodeError(join(path, "codec_type"), "want AUTO or HTTP1: only HTTP/1.1 is spoken here")
    _check_http_filters(manager, path)
    options, where = manager.common_http_protocol_options, join(path, "common_http_protocol_options")
    only(options, where, "idle_timeout", "max_headers_count", "max_stream_duration", "headers_with_underscores_action")
    table_name, inline = _routes(manager, path)
    kilobytes = wrapped(manager, "max_request_headers_kb", 0)
    return HttpFilter(
        stat_prefix=manager.stat_prefix or _DEFAULTS.stat_prefix,
        route_table=table_name,
        inline_routes=inline,
        tracing=_tracing(manager, path),
        access_log=decode_access_log(manager.access_log, join(path, "access_log")),
        use_remote_address=wrapped(manager, "use_remote_address", False),
        generate_request_id=wrapped(manager, "generate_request_id", True),
        preserve_external_request_id=manager.preserve_external_request_id or _DEFAULTS.preserve_external_request_id,
        server_name=manager.server_name or _DEFAULTS.server_name,
        upgrades=_upgrades(manager, path),
        request_headers_timeout_s=seconds(manager, "request_headers_timeout") or _DEFAULTS.request_headers_timeout_s,
        idle_timeout_s=_or(seconds(options, "idle_timeout"), _DEFAULTS.idle_timeout_s),
        stream_idle_timeout_s=_or(seconds(manager, "stream_idle_timeout"), _DEFAULTS.stream_idle_timeout_s),
        max_header_bytes=kilobytes * 1024 or _DEFAULTS.max_header_bytes,
        max_header_count=wrapped(options, "max_headers_count", _DEFAULTS.max_header_count),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_http_filters(manager: Any, path: str) -> None:
    """The router must be the last filter and, today, is the only one."""
    where = join(path, "http_filters")
    if not manager.http_filters:
        raise DecodeError(where, "is empty; want envoy.filters.http.router as the last filter")
    for i, one in enumerate(manager.http_filters):
        only(one, f"{where}[{i}]", "name", "typed_config", "is_optional", "disabled")
        if one.disabled:
            continue
        if one.typed_config.type_url.rpartition("/")[2] != "envoy.extensions.filters.http.router.v3.Router":
            if one.is_optional:
                continue
            problem = f'HTTP filter "{one.name}" is not supported; only envoy.filters.http.router is'
            raise DecodeError(f"{where}[{i}]", problem)
        kinds = {"envoy.extensions.filters.http.router.v3.Router": router_pb2.Router}
        _, router = unpack(one.typed_config, f"{where}[{i}].typed_config", dict(kinds))
        only(router, f"{where}[{i}].typed_config", "dynamic_stats", "start_child_span")
        if i != len(manager.http_filters) - 1:
            raise DecodeError(f"{where}[{i}]", "the router must be the last filter")


def _routes(manager: Any, path: str) -> tuple[str, RouteTable | None]:
    match manager.WhichOneof("route_specifier"):
        case "rds":
            only(manager.rds, join(path, "rds"), "config_source", "route_config_name")
            source, where = manager.rds.config_source, join(path, "rds.config_source")
            only(source, where, "ads", "resource_api_version", "initial_fetch_timeout")
            if not source.HasField("ads"):
                raise DecodeError(where, "want ads: {}; routes from elsewhere are not supported")
            return manager.rds.route_config_name, None
        case "route_config":
            return "", decode_route_table(manager.route_config, join(path, "route_config"))
        case _:
            raise DecodeError(path, "want one of rds, route_config")


def _upgrades(manager: Any, path: str) -> frozenset[str]:
    names: set[str] = set()
    for i, one in enumerate(manager.upgrade_configs):
        where = f"{join(path, 'upgrade_configs')}[{i}]"
        only(one, where, "upgrade_type", "enabled")
        name = one.upgrade_type.lower()
        if name == "connect":
            raise DecodeError(join(where, "upgrade_type"), "CONNECT is not supported")
        if wrapped(one, "enabled", True):
            names.add(name)
    # DEVIATION: Envoy passes no upgrade on unless told to; a sidecar that breaks websockets by default surprises everybody.
    return frozenset(names) or _DEFAULTS.upgrades


_OPENTELEMETRY: Final = "envoy.config.trace.v3.OpenTelemetryConfig"


def _tracing(manager: Any, path: str) -> Tracing | None:
    if not manager.HasField("tracing"):
        return None
    tracing, path = manager.tracing, join(path, "tracing")
    only(
        tracing,
        path,
        "client_sampling",
        "random_sampling",
        "overall_sampling",
        "provider",
        "verbose",
        "max_path_tag_length",
        "custom_tags",
        "spawn_upstream_span",
    )
    collector, service = "", ""
    if tracing.HasField("provider"):
        where = join(path, "provider.typed_config")
        kinds = {_OPENTELEMETRY: opentelemetry_pb2.OpenTelemetryConfig}
        _, provider = unpack(tracing.provider.typed_config, where, dict(kinds))
        only(provider, where, "grpc_service", "service_name", "resource_detectors")
        only(provider.grpc_service, join(where, "grpc_service"), "envoy_grpc", "timeout", "initial_metadata")
        collector, service = provider.grpc_service.envoy_grpc.cluster_name, provider.service_name
    sampling = tracing.random_sampling.value if tracing.HasField("random_sampling") else 100.0
    overall = tracing.overall_sampling.value if tracing.HasField("overall_sampling") else 100.0
    return Tracing(sampling_percent=min(sampling, overall), collector_cluster=collector, service_name=service)
