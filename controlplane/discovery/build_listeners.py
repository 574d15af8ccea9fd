"""Services and a pod's own ports -> listeners. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, grpc_service_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.v3 import percent_pb2

from controlplane.discovery.build_clusters import PASSTHROUGH, TRACES, inbound_name, outbound_name
from controlplane.discovery.build_filters import add_http_filters
from controlplane.discovery.build_limits import PortLimits, add_limits
from controlplane.discovery.build_routes import PROXY_ROUTES
from controlplane.discovery.config import MeshSettings
from controlplane.discovery.facts import PortFacts, Protocol, ServiceFacts
from controlplane.discovery.messages import ads_source, duration, socket_address
from controlplane.discovery.metadata import provenance_metadata
from controlplane.discovery.resources import LDS, Resource, resource_of
from policies.traffic import CompiledDestinationRule

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
DETECT_TIMEOUT_S = 5.0
"""How long a server-first connection may wait for its first bytes. Source: docs/contracts.md."""
_HTTP1 = ("http/1.0", "http/1.1")
InboundPort = tuple[int, Protocol]
"""A container port that a Service targets, and what it speaks."""


def http_listener(port: int, settings: MeshSettings) -> Resource:
    """`0.0.0.0_PORT`: every connection to that port, routed by Host when it is HTTP, passed through when it is not."""
    name = f"0.0.0.0_{port}"
    listener = _outbound(name, "0.0.0.0", port)
    _add_detection(listener)
    manager = _http_manager(f"outbound_{name}", settings)
    _use_rds(manager, str(port))
    listener.filter_chains.append(_detected_chain(manager))
    listener.default_filter_chain.filters.append(_tcp_proxy("outbound_passthrough", PASSTHROUGH))
    return resource_of(LDS, name, listener, (f"rds:{port}", PASSTHROUGH))


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """How long a TCP connection may live; None: the proxy's default."""

    idle_s: float | None = None
    duration_s: float | None = None


NO_LIMITS = TcpLimits()


def tcp_limits(rule: CompiledDestinationRule | None, port: PortFacts) -> TcpLimits:
    """What `rule` says about connections to a port that are not HTTP."""
    if rule is None:
        return NO_LIMITS
    settings = rule.settings_for(port.number)
    return TcpLimits(settings.tcp_idle_timeout_s, settings.max_connection_duration_s)


def service_listener(
    service: ServiceFacts, port: PortFacts, settings: MeshSettings, limits: TcpLimits = NO_LIMITS
) -> Resource:
    """`CLUSTERIP_PORT`, for a port that is TCP or not declared, of a service with an address."""
    name = f"{service.cluster_ip}_{port.number}"
    cluster = outbound_name(service.host, port.number)
    references = {cluster}
    listener = _outbound(name, service.cluster_ip, port.number)
    listener.metadata.CopyFrom(provenance_metadata(service.provenance))
    if port.protocol is Protocol.DETECT:
        _add_detection(listener)
        manager = _http_manager(f"outbound_{name}", settings)
        _use_rds(manager, str(port.number))
        listener.filter_chains.append(_detected_chain(manager))
        references.add(f"rds:{port.number}")
    listener.default_filter_chain.filters.append(_tcp_proxy(cluster, cluster, limits))
    return resource_of(LDS, name, listener, references)


def virtual_outbound() -> Resource:
    """Where redirected connections arrive; handed to the listener of their original destination, else passed through."""
    listener = _outbound("virtualOutbound", "0.0.0.0", OUTBOUND_PORT)
    listener.ClearField("bind_to_port")
    listener.use_original_dst.value = True
    chain = listener_components_pb2.FilterChain(filters=[_tcp_proxy("outbound_passthrough", PASSTHROUGH)])
    listener.filter_chains.append(chain)
    return resource_of(LDS, listener.name, listener, (PASSTHROUGH,))


def virtual_inbound(
    ports: Iterable[InboundPort], settings: MeshSettings, limits: Iterable[PortLimits] = ()
) -> Resource:
    """Where connections to the pod arrive: a chain per port that a Service targets, the rest passed through."""
    listener = listener_pb2.Listener(
        name="virtualInbound",
        address=socket_address("0.0.0.0", INBOUND_PORT),
        traffic_direction=base_pb2.INBOUND,
    )
    original = listener.listener_filters.add(name="envoy.filters.listener.original_dst")
    original.typed_config.Pack(original_dst_pb2.OriginalDst())
    references = {PASSTHROUGH}
    ports = sorted(ports, key=lambda item: item[0])
    if any(protocol is Protocol.DETECT for _, protocol in ports):
        _add_detection(listener)
    limited = {limit.port: limit for limit in limits}
    for port, protocol in ports:
        references.add(inbound_name(port))
        listener.filter_chains.extend(_inbound_chains(port, protocol, settings, limited.get(port)))
    listener.default_filter_chain.filters.append(_tcp_proxy("inbound_passthrough", PASSTHROUGH))
    return resource_of(LDS, listener.name, listener, references)


def _inbound_chains(port: int, protocol: Protocol, settings: MeshSettings, limits: PortLimits | None) -> Iterable[Any]:
    cluster = inbound_name(port)
    if protocol is not Protocol.TCP:
        manager = _http_manager(f"inbound_{port}", settings, limits)
        manager.route_config.CopyFrom(_inbound_routes(port, cluster))
        chain = _detected_chain(manager) if protocol is Protocol.DETECT else _chain(manager)
        chain.filter_chain_match.destination_port.value = port
        yield chain
    if protocol is not Protocol.HTTP:
        tcp = listener_components_pb2.FilterChain(name=f"{port}_tcp", filters=[_tcp_proxy(cluster, cluster)])
        tcp.filter_chain_match.destination_port.value = port
        yield tcp


def _inbound_routes(port: int, cluster: str) -> Any:
    route = route_components_pb2.Route(
        name="default",
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(cluster=cluster, timeout=duration(0)),
    )
    host = route_components_pb2.VirtualHost(name=f"inbound|http|{port}", domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name=cluster, virtual_hosts=[host])


def proxy_listener(settings: MeshSettings) -> Resource:
    """For a proxy without interception: `127.0.0.1:15001`, every service by Host."""
    listener = listener_pb2.Listener(
        name="http_proxy",
        address=socket_address("127.0.0.1", OUTBOUND_PORT),
        traffic_direction=base_pb2.OUTBOUND,
    )
    manager = _http_manager("outbound_http_proxy", settings)
    _use_rds(manager, PROXY_ROUTES)
    listener.filter_chains.append(_chain(manager))
    return resource_of(LDS, listener.name, listener, (f"rds:{PROXY_ROUTES}",))


def _outbound(name: str, address: str, port: int) -> Any:
    listener = listener_pb2.Listener(
        name=name, address=socket_address(address, port), traffic_direction=base_pb2.OUTBOUND
    )
    listener.bind_to_port.value = False
    return listener


def _add_detection(listener: Any) -> None:
    inspector = listener.listener_filters.add(name="envoy.filters.listener.http_inspector")
    inspector.typed_config.Pack(http_inspector_pb2.HttpInspector())
    listener.listener_filters_timeout.CopyFrom(duration(DETECT_TIMEOUT_S))
    listener.continue_on_listener_filters_timeout = True


def _detected_chain(manager: Any) -> Any:
    chain = _chain(manager)
    chain.filter_chain_match.application_protocols.extend(_HTTP1)
    return chain


def _chain(manager: Any) -> Any:
    network = listener_components_pb2.Filter(name="envoy.filters.network.http_connection_manager")
    network.typed_config.Pack(manager, deterministic=True)
    return listener_components_pb2.FilterChain(name=manager.stat_prefix, filters=[network])


def _tcp_proxy(stat_prefix: str, cluster: str, limits: TcpLimits = NO_LIMITS) -> Any:
    network = listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy")
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=stat_prefix, cluster=cluster)
    if limits.idle_s is not None:
        proxy.idle_timeout.CopyFrom(duration(limits.idle_s))
    if limits.duration_s is not None:
        proxy.max_downstream_connection_duration.CopyFrom(duration(limits.duration_s))
    network.typed_config.Pack(proxy)
    return network


def _http_manager(stat_prefix: str, settings: MeshSettings, limits: PortLimits | None = None) -> Any:
    manager = hcm_pb2.HttpConnectionManager(stat_prefix=stat_prefix)
    if limits is not None:
        add_limits(manager, limits)
    add_http_filters(manager)
    manager.upgrade_configs.add(upgrade_type="websocket")
    manager.tracing.CopyFrom(_tracing(settings))
    if settings.access_log_path:
        manager.access_log.append(_access_log(settings.access_log_path))
    return manager


def _use_rds(manager: Any, name: str) -> None:
    manager.rds.CopyFrom(hcm_pb2.Rds(config_source=ads_source(), route_config_name=name))


def _tracing(settings: MeshSettings) -> Any:
    """The service's name is left to the proxy: the listeners' bytes are the same for every workload."""
    collector = opentelemetry_pb2.OpenTelemetryConfig(
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=TRACES), timeout=duration(5.0)
        )
    )
    provider = http_tracer_pb2.Tracing.Http(name="envoy.tracers.opentelemetry")
    provider.typed_config.Pack(collector)
    return hcm_pb2.HttpConnectionManager.Tracing(
        random_sampling=percent_pb2.Percent(value=settings.trace_sampling_percent), provider=provider
    )


def _access_log(path: str) -> Any:
    log = accesslog_pb2.AccessLog(name="envoy.access_loggers.file")
    log.typed_config.Pack(file_pb2.FileAccessLog(path=path))
    return log
