"""envoy.config.listener.v3.Listener -> Listener. Pure."""

from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from mesh.routing.table import WeightedCluster
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, socket_address, unpack, wrapped
from sidecar.config import Direction, FilterChain, HttpFilter, Listener, TcpFilter
from sidecar.decode.access_logs import decode_access_log
from sidecar.decode.http_filters import decode_http_filter

_FILTERS: Final = {
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": (
        http_connection_manager_pb2.HttpConnectionManager
    ),
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": tcp_proxy_pb2.TcpProxy,
}
_DETECTED: Final = frozenset({"http/1.0", "http/1.1", "h2c"})
_ORIGINAL_DST: Final = "original_dst"
_HTTP_INSPECTOR: Final = "http_inspector"
_TLS_INSPECTOR: Final = "tls_inspector"


def decode_listener(listener: Any, path: str) -> Listener:
    """One listener. Raises DecodeError."""
    only(
        listener,
        path,
        "name",
        "address",
        "filter_chains",
        "default_filter_chain",
        "listener_filters",
        "listener_filters_timeout",
        "continue_on_listener_filters_timeout",
        "use_original_dst",
        "bind_to_port",
        "deprecated_v1",
        "traffic_direction",
        "stat_prefix",
        "per_connection_buffer_limit_bytes",
        "metadata",
        "enable_reuse_port",
        "tcp_backlog_size",
    )
    address, port = socket_address(listener.address, join(path, "address"), allow_port_zero=True)
    filters = _listener_filters(listener, path)
    direction = Direction.INBOUND if listener.traffic_direction == base_pb2.INBOUND else Direction.OUTBOUND
    return Listener(
        name=listener.name or f"{address}:{port}",
        address=address,
        port=port,
        bind=wrapped(listener, "bind_to_port", wrapped(listener.deprecated_v1, "bind_to_port", True)),
        use_original_dst=wrapped(listener, "use_original_dst", False) or _ORIGINAL_DST in filters,
        direction=direction,
        chains=_chains(listener, path),
        detect_timeout_s=seconds(listener, "listener_filters_timeout") or 5.0,
    )


def _listener_filters(listener: Any, path: str) -> set[str]:
    found: set[str] = set()
    for i, one in enumerate(listener.listener_filters):
        where = f"{join(path, 'listener_filters')}[{i}]"
        only(one, where, "name", "typed_config", "filter_disabled")
        kind = one.typed_config.type_url.split(".extensions.filters.listener.")[-1].split(".")[0] or one.name
        kind = kind.rpartition(".")[2]
        if kind not in (_ORIGINAL_DST, _HTTP_INSPECTOR, _TLS_INSPECTOR):
            raise DecodeError(where, f'listener filter "{kind}" is not supported')
        found.add(kind)
    return found


def _chains(listener: Any, path: str) -> tuple[FilterChain, ...]:
    chains = [_chain(chain, f"{join(path, 'filter_chains')}[{i}]") for i, chain in enumerate(listener.filter_chains)]
    if listener.HasField("default_filter_chain"):
        chains.append(_chain(listener.default_filter_chain, join(path, "default_filter_chain")))
    return tuple(chain for chain in chains if chain is not None)


def _chain(chain: Any, path: str) -> FilterChain | None:
    """A filter chain; None for one that only takes TLS, which no connection here is recognised as."""
    only(chain, path, "name", "filter_chain_match", "filters", "metadata", "transport_socket_connect_timeout")
    match, where = chain.filter_chain_match, join(path, "filter_chain_match")
    only(match, where, "destination_port", "application_protocols", "transport_protocol")
    if match.transport_protocol not in ("", "raw_buffer", "tls"):
        raise DecodeError(join(where, "transport_protocol"), f'"{match.transport_protocol}" is not supported')
    if match.transport_protocol == "tls":
        return None
    unknown = sorted(set(match.application_protocols) - _DETECTED)
    if unknown:
        raise DecodeError(
            join(where, "application_protocols"), f"{', '.join(unknown)}: known are http/1.0, http/1.1, h2c"
        )
    return FilterChain(
        name=chain.name,
        destination_port=wrapped(match, "destination_port", None),
        detected_http=bool(match.application_protocols),
        filter=_network_filter(chain, path),
    )


def _network_filter(chain: Any, path: str) -> HttpFilter | TcpFilter:
    where = join(path, "filters")
    if len(chain.filters) != 1:
        raise DecodeError(
            where, f"has {len(chain.filters)} filters; want one, an HTTP connection manager or a TCP proxy"
        )
    where = f"{where}[0]"
    only(chain.filters[0], where, "name", "typed_config")
    where = join(where, "typed_config")
    _, message = unpack(chain.filters[0].typed_config, where, dict(_FILTERS))
    if isinstance(message, tcp_proxy_pb2.TcpProxy):
        return _tcp(message, where)
    return decode_http_filter(message, where)


def _tcp(proxy: Any, path: str) -> TcpFilter:
    only(
        proxy, path, "stat_prefix", "cluster", "weighted_clusters", "idle_timeout", "access_log", "max_connect_attempts"
    )
    idle = seconds(proxy, "idle_timeout")
    return TcpFilter(
        stat_prefix=proxy.stat_prefix or "tcp",
        clusters=_tcp_clusters(proxy, path),
        idle_timeout_s=3600.0 if idle is None else idle,
        access_log=decode_access_log(proxy.access_log, join(path, "access_log")),
    )


def _tcp_clusters(proxy: Any, path: str) -> tuple[WeightedCluster, ...]:
    if proxy.cluster:
        return (WeightedCluster(name=proxy.cluster),)
    branches: list[WeightedCluster] = []
    for i, one in enumerate(proxy.weighted_clusters.clusters):
        where = f"{join(path, 'weighted_clusters.clusters')}[{i}]"
        only(one, where, "name", "weight")
        branches.append(WeightedCluster(name=one.name, weight=one.weight))
    if not branches:
        raise DecodeError(path, "want one of cluster, weighted_clusters")
    return tuple(branches)
