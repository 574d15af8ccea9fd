"""Typed views of DestinationRule's trafficPolicy. Source: istio.io/docs/reference/config/networking/destination-rule.

As in `mesh.api.networking`: only what is carried out has a field; durations are texts, "" means unset.
"""

from collections.abc import Mapping

import msgspec

from mesh.api.meta import View


class PortSelector(View, frozen=True, kw_only=True):
    number: int = 0


class TcpKeepalive(View, frozen=True, kw_only=True):
    """None and "": the operating system's."""

    probes: int | None = None
    time: str = ""
    interval: str = ""


class TcpSettings(View, frozen=True, kw_only=True):
    max_connections: int = 0
    connect_timeout: str = ""
    tcp_keepalive: TcpKeepalive | None = None
    idle_timeout: str = ""
    max_connection_duration: str = ""


class HttpSettings(View, frozen=True, kw_only=True):
    http1_max_pending_requests: int = msgspec.field(name="http1MaxPendingRequests", default=0)
    http2_max_requests: int = msgspec.field(name="http2MaxRequests", default=0)
    """Active requests to the host, HTTP/1.1 too (Envoy's max_requests)."""
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: str = ""
    h2_upgrade_policy: str = msgspec.field(name="h2UpgradePolicy", default="")
    """Only DEFAULT and DO_NOT_UPGRADE are carried out."""
    use_client_protocol: bool = False
    """Changes nothing: what is routed as HTTP came as HTTP/1.x and goes on as that."""


class ConnectionPoolSettings(View, frozen=True, kw_only=True):
    tcp: TcpSettings = TcpSettings()
    http: HttpSettings = HttpSettings()


class HttpCookie(View, frozen=True, kw_only=True):
    name: str = ""
    path: str = ""
    ttl: str | None = None
    """None: only cookies that the client already has count. 0s: a cookie for the session is made."""


class RingHash(View, frozen=True, kw_only=True):
    minimum_ring_size: int | None = None


class MagLev(View, frozen=True, kw_only=True):
    table_size: int | None = None


class ConsistentHash(View, frozen=True, kw_only=True):
    """Exactly one of the four keys; at most one of the two tables."""

    http_header_name: str = ""
    http_cookie: HttpCookie | None = None
    use_source_ip: bool = False
    http_query_parameter_name: str = ""
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: int | None = None
    """The older place of ringHash.minimumRingSize."""


class LocalityDistribute(View, frozen=True, kw_only=True):
    from_: str = msgspec.field(name="from", default="")
    """`region/zone/subzone`; the last part given may be `*`."""
    to: Mapping[str, int] = {}


class LocalityFailover(View, frozen=True, kw_only=True):
    from_: str = msgspec.field(name="from", default="")
    to: str = ""


class LocalityLbSetting(View, frozen=True, kw_only=True):
    """At most one of distribute, failover and failoverPriority."""

    distribute: tuple[LocalityDistribute, ...] = ()
    failover: tuple[LocalityFailover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool = True


class Warmup(View, frozen=True, kw_only=True):
    duration: str = ""
    minimum_percent: float | None = None
    aggression: float | None = None


class LoadBalancerSettings(View, frozen=True, kw_only=True):
    simple: str = ""
    """LEAST_REQUEST (default), ROUND_ROBIN, RANDOM; UNSPECIFIED and LEAST_CONN mean LEAST_REQUEST."""
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup_duration_secs: str = ""
    """The older form of warmup.duration."""
    warmup: Warmup | None = None


class OutlierDetection(View, frozen=True, kw_only=True):
    """None means Meshwork's default. Source: Envoy outlier detection."""

    consecutive_5xx_errors: int | None = msgspec.field(name="consecutive5xxErrors", default=None)
    consecutive_gateway_errors: int | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: int | None = None
    interval: str = ""
    base_ejection_time: str = ""
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


class RetryBudget(View, frozen=True, kw_only=True):
    percent: float | None = None
    min_retry_concurrency: int | None = None


class PortTrafficPolicy(View, frozen=True, kw_only=True):
    port: PortSelector = PortSelector()
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    retry_budget: RetryBudget | None = None


class TrafficPolicy(View, frozen=True, kw_only=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    retry_budget: RetryBudget | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
