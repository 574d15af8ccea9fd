"""DestinationRule -> how a host's clusters are used, and its subsets."""

from collections.abc import Mapping

from mesh.api.networking import (
    ConnectionPoolSettings,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    Subset,
    TrafficPolicy,
)
from mesh.api.selectors import is_label_key, is_label_value
from mesh.resilience.outlier import OutlierConfig
from policies.checks import Findings
from policies.errors import Problems
from policies.hosts import resolve_host
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.values import (
    DEFAULT_SETTINGS,
    CompiledDestinationRule,
    CompiledSubset,
    LoadBalancing,
    TrafficSettings,
)
from policies.visibility import compile_visibility

KIND = "DestinationRule"
_LOAD_BALANCING = {
    "": LoadBalancing.LEAST_REQUEST,
    "UNSPECIFIED": LoadBalancing.LEAST_REQUEST,
    "LEAST_CONN": LoadBalancing.LEAST_REQUEST,
    "LEAST_REQUEST": LoadBalancing.LEAST_REQUEST,
    "ROUND_ROBIN": LoadBalancing.ROUND_ROBIN,
    "RANDOM": LoadBalancing.RANDOM,
}
_Policy = TrafficPolicy | PortTrafficPolicy


def compile_destination_rule(rule: DestinationRule, registry: Registry) -> CompiledDestinationRule | Problems:
    """The rule, or everything that is wrong with it."""
    findings = Findings()
    host = _host(rule, registry, findings)
    policy = rule.spec.traffic_policy
    settings, port_settings = _settings("spec.trafficPolicy", policy, None, findings)
    visibility = compile_visibility(rule.spec.export_to, rule.metadata.namespace, findings)
    subsets = _subsets(rule, findings)
    if findings.errors:
        return Problems(provenance_of(KIND, rule.metadata), tuple(findings.errors))
    return CompiledDestinationRule(
        key=rule.key,
        generation=rule.metadata.generation,
        created=rule.metadata.creation_timestamp,
        host=host,
        settings=settings,
        port_settings=port_settings,
        subsets=subsets,
        visibility=visibility,
        provenance=provenance_of(KIND, rule.metadata, "spec.trafficPolicy" if policy else ""),
    )


def _host(rule: DestinationRule, registry: Registry, findings: Findings) -> str:
    if not rule.spec.host:
        findings.required("spec.host", "name the service this rule is for")
        return ""
    host = resolve_host(rule.spec.host, rule.metadata.namespace, registry.ports, registry.domain)
    if "*" in host:
        findings.unsupported("spec.host", f'"{host}": wildcards are not supported here; name one service')
    elif problem := registry.host_problem(host):
        findings.invalid("spec.host", problem)
    return host


def _subsets(rule: DestinationRule, findings: Findings) -> Mapping[str, CompiledSubset]:
    compiled: dict[str, CompiledSubset] = {}
    for index, subset in enumerate(rule.spec.subsets):
        path = f"spec.subsets[{index}]"
        _check_subset(path, subset, compiled, findings)
        settings, port_settings = _settings(
            f"{path}.trafficPolicy", subset.traffic_policy, rule.spec.traffic_policy, findings
        )
        compiled[subset.name] = CompiledSubset(
            name=subset.name,
            labels=tuple(sorted(subset.labels.items())),
            settings=settings,
            port_settings=port_settings,
            provenance=provenance_of(KIND, rule.metadata, path),
        )
    return compiled


def _check_subset(path: str, subset: Subset, earlier: Mapping[str, CompiledSubset], findings: Findings) -> None:
    if not subset.name:
        findings.required(f"{path}.name", "give the subset a name for routes to refer to")
    elif subset.name in earlier:
        findings.duplicate(f"{path}.name", f'subset "{subset.name}" is defined twice: rename one')
    elif not subset.name.replace("-", "").replace(".", "").isalnum():
        findings.invalid(f"{path}.name", f'"{subset.name}": use letters, digits, "-" and "."')
    for key, value in subset.labels.items():
        if not is_label_key(key) or not is_label_value(value):
            findings.invalid(f"{path}.labels", f'"{key}: {value}" is not a label: no pod can carry it')


def _settings(
    path: str, policy: TrafficPolicy | None, base: TrafficPolicy | None, findings: Findings
) -> tuple[TrafficSettings, Mapping[int, TrafficSettings]]:
    """Settings of the cluster and of single ports. A subset's policy overrides its rule's field by field; a port's stands alone.

    Source: istio.io, TrafficPolicy ("traffic settings specified at the destination-level will not be inherited").
    """
    ports: dict[int, TrafficSettings] = {}
    for source, sink in ((base, Findings()), (policy, findings)):  # the base's own errors are reported where it stands
        for index, entry in enumerate(source.port_level_settings if source else ()):
            entry_path = f"{path}.portLevelSettings[{index}]"
            sink.port(f"{entry_path}.port.number", entry.port.number)
            ports[entry.port.number] = _one(entry_path, entry, None, sink)
    return _one(path, policy, base, findings), ports


def _one(path: str, policy: _Policy | None, base: TrafficPolicy | None, findings: Findings) -> TrafficSettings:
    if policy is None:
        return DEFAULT_SETTINGS if base is None else _one(path, base, None, Findings())
    inherited = base or TrafficPolicy()
    own = _merge(path, policy, policy, findings)
    if base is None:
        return own
    return _merge(path, policy, inherited, Findings())


def _merge(path: str, policy: _Policy, base: _Policy, findings: Findings) -> TrafficSettings:
    """Each of the three groups from `policy`, or from `base` where `policy` leaves it out."""
    balancer = policy.load_balancer or base.load_balancer
    pool = policy.connection_pool or base.connection_pool or ConnectionPoolSettings()
    outlier = policy.outlier_detection or base.outlier_detection
    return _traffic_settings(path, balancer, pool, outlier, findings)


def _traffic_settings(
    path: str,
    balancer: LoadBalancerSettings | None,
    pool: ConnectionPoolSettings,
    outlier: OutlierDetection | None,
    findings: Findings,
) -> TrafficSettings:
    pool_path = f"{path}.connectionPool"
    _check_pool(pool_path, pool, findings)
    tcp, http = pool.tcp, pool.http
    default = DEFAULT_SETTINGS
    connect = findings.duration(f"{pool_path}.tcp.connectTimeout", tcp.connect_timeout)
    http_idle = findings.duration(f"{pool_path}.http.idleTimeout", http.idle_timeout)
    tcp_idle = findings.duration(f"{pool_path}.tcp.idleTimeout", tcp.idle_timeout)
    return TrafficSettings(
        load_balancing=_load_balancing(f"{path}.loadBalancer.simple", balancer, findings),
        max_connections=tcp.max_connections or default.max_connections,
        max_pending_requests=http.http1_max_pending_requests or default.max_pending_requests,
        max_requests=http.http2_max_requests or default.max_requests,
        max_retries=http.max_retries or None,
        max_requests_per_connection=http.max_requests_per_connection,
        connect_timeout_s=connect or default.connect_timeout_s,
        idle_timeout_s=http_idle or tcp_idle,
        outlier=_outlier(f"{path}.outlierDetection", outlier, findings),
        min_health_percent=_min_health(f"{path}.outlierDetection", outlier, findings),
    )


def _check_pool(path: str, pool: ConnectionPoolSettings, findings: Findings) -> None:
    findings.at_least(f"{path}.tcp.maxConnections", pool.tcp.max_connections, 0)
    findings.at_least(f"{path}.http.http1MaxPendingRequests", pool.http.http1_max_pending_requests, 0)
    findings.at_least(f"{path}.http.http2MaxRequests", pool.http.http2_max_requests, 0)
    findings.at_least(f"{path}.http.maxRetries", pool.http.max_retries, 0)
    findings.at_least(f"{path}.http.maxRequestsPerConnection", pool.http.max_requests_per_connection, 0)


def _load_balancing(path: str, balancer: LoadBalancerSettings | None, findings: Findings) -> LoadBalancing:
    name = balancer.simple if balancer else ""
    chosen = _LOAD_BALANCING.get(name)
    if chosen is None:
        findings.unsupported(path, f'"{name}" is not known: use LEAST_REQUEST, ROUND_ROBIN or RANDOM')
        return LoadBalancing.LEAST_REQUEST
    return chosen


def _outlier(path: str, outlier: OutlierDetection | None, findings: Findings) -> OutlierConfig | None:
    if outlier is None:
        return None
    default = OutlierConfig()
    counts = {
        "consecutive5xxErrors": (outlier.consecutive_5xx_errors, default.consecutive_5xx),
        "consecutiveGatewayErrors": (
            outlier.consecutive_gateway_errors,
            0,
        ),  # as in Envoy: not enforced unless asked for
        "consecutiveLocalOriginFailures": (outlier.consecutive_local_origin_failures, default.consecutive_local_origin),
    }
    chosen: list[int] = []
    for name, (given, otherwise) in counts.items():
        value = otherwise if given is None else given
        findings.at_least(f"{path}.{name}", value, 0)
        chosen.append(max(value, 0))
    percent = default.max_ejection_percent if outlier.max_ejection_percent is None else outlier.max_ejection_percent
    findings.between(f"{path}.maxEjectionPercent", percent, 0, 100)
    base = findings.duration(f"{path}.baseEjectionTime", outlier.base_ejection_time) or default.base_ejection_s
    return OutlierConfig(
        consecutive_5xx=chosen[0],
        consecutive_gateway=chosen[1],
        consecutive_local_origin=chosen[2],
        split_local_origin=outlier.split_external_local_origin_errors,
        interval_s=findings.duration(f"{path}.interval", outlier.interval) or default.interval_s,
        base_ejection_s=base,
        max_ejection_s=max(default.max_ejection_s, base),
        max_ejection_percent=min(max(percent, 0), 100),
    )


def _min_health(path: str, outlier: OutlierDetection | None, findings: Findings) -> int | None:
    if outlier is None or outlier.min_health_percent is None:
        return None
    findings.between(f"{path}.minHealthPercent", outlier.min_health_percent, 0, 100)
    return outlier.min_health_percent
