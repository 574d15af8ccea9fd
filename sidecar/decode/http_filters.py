"""The HTTP connection manager -> HttpFilter. Pure."""

from typing import Any, Final

from envoy.config.trace.v3 import opentelemetry_pb2

from mesh.http.path import EscapedSlashes
from mesh.routing.table import RouteTable
from mesh.xds.decode_routes import decode_route_table
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, unpack, wrapped
from sidecar.config import HttpFilter, Tracing, UnderscoreAction
from sidecar.decode.access_logs import decode_access_log
from sidecar.decode.filter_chain import decode_filter_chain

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
    "server_header_transformation",
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "via",
    "xff_num_trusted_hops",
    "skip_xff_append",
    "request_timeout",
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
_PROTOCOL_OPTIONS: Final = (
    "idle_timeout",
    "max_headers_count",
    "max_stream_duration",
    "max_connection_duration",
    "max_requests_per_connection",
    "headers_with_underscores_action",
)
_ESCAPED_SLASHES: Final = (
    EscapedSlashes.KEEP_UNCHANGED,  # IMPLEMENTATION_SPECIFIC_DEFAULT
    EscapedSlashes.KEEP_UNCHANGED,
    EscapedSlashes.REJECT,
    EscapedSlashes.UNESCAPE_AND_REDIRECT,
    EscapedSlashes.UNESCAPE_AND_FORWARD,
)
"""In the order of PathWithEscapedSlashesAction."""
_UNDERSCORES: Final = (UnderscoreAction.ALLOW, UnderscoreAction.REJECT, UnderscoreAction.DROP)
"""In the order of HeadersWithUnderscoresAction."""
_PASS_THROUGH: Final = 2
_DEFAULTS: Final = HttpFilter()


def decode_http_filter(manager: Any, path: str) -> HttpFilter:
    """An HttpConnectionManager. Raises DecodeError."""
    only(manager, path, *_SUPPORTED, *_HARMLESS)
    if manager.codec_type not in (0, 1):
        raise DecodeError(join(path, "codec_type"), "want AUTO or HTTP1: only HTTP/1.1 is spoken here")
    chain = decode_filter_chain(manager, path)
    options, where = manager.common_http_protocol_options, join(path, "common_http_protocol_options")
    only(options, where, *_PROTOCOL_OPTIONS)
    if seconds(options, "max_stream_duration"):
        raise DecodeError(join(where, "max_stream_duration"), "only 0 (no limit) is supported; use the route's")
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
        preserve_external_request_id=manager.preserve_external_request_id,
        server_name=manager.server_name or _DEFAULTS.server_name,
        upgrades=_upgrades(manager, path),
        request_headers_timeout_s=seconds(manager, "request_headers_timeout") or _DEFAULTS.request_headers_timeout_s,
        idle_timeout_s=_or(seconds(options, "idle_timeout"), _DEFAULTS.idle_timeout_s),
        stream_idle_timeout_s=_or(seconds(manager, "stream_idle_timeout"), _DEFAULTS.stream_idle_timeout_s),
        max_header_bytes=kilobytes * 1024 or _DEFAULTS.max_header_bytes,
        max_header_count=wrapped(options, "max_headers_count", _DEFAULTS.max_header_count),
        filters=chain.kinds,
        settings=chain.settings,
        adaptive=chain.adaptive,
        adds_server=manager.server_header_transformation != _PASS_THROUGH,
        normalize_path=wrapped(manager, "normalize_path", False),
        merge_slashes=manager.merge_slashes,
        escaped_slashes=_ESCAPED_SLASHES[manager.path_with_escaped_slashes_action],
        via=_via(manager, path),
        trusted_hops=manager.xff_num_trusted_hops,
        skip_xff_append=manager.skip_xff_append,
        underscores=_UNDERSCORES[options.headers_with_underscores_action],
        max_requests_per_connection=wrapped(options, "max_requests_per_connection", 0),
        max_connection_duration_s=seconds(options, "max_connection_duration") or 0.0,
        request_timeout_s=seconds(manager, "request_timeout") or 0.0,
    )


def _via(manager: Any, path: str) -> str:
    if any(c in manager.via for c in "\r\n\0"):
        raise DecodeError(join(path, "via"), "holds a line break or a NUL")
    return str(manager.via)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


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
