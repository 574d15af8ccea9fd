"""The snapshot: everything the data plane needs to know, as one immutable value.

Written by the decoder (ADS or a bootstrap file), read by the hot path. References are complete: every route table and
cluster that a listener or route names is in the same snapshot, or the request is answered 503 with the flag NC.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.balance.config import DEFAULT_OPTIONS, BalanceOptions
from mesh.balance.endpoint import Endpoint, LbPolicy
from mesh.http.path import EscapedSlashes
from mesh.resilience.adaptive import AdaptiveConfig
from mesh.resilience.health_check import HealthCheck
from mesh.resilience.limits import DEFAULT_LIMITS, CircuitLimits
from mesh.resilience.outlier import OutlierConfig
from mesh.routing.filters import NO_SETTINGS, FilterKind, FilterSettings
from mesh.routing.table import Provenance, RouteTable, WeightedCluster


class Direction(enum.Enum):
    """Which way a listener's traffic goes. Decides the `reporter` label and the spans' kind."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class ClusterKind(enum.Enum):
    STATIC = "static"
    """`endpoints` is all there is (EDS has been merged in by the decoder)."""
    ORIGINAL_DST = "original_dst"
    """The address the client meant; `endpoints` is empty."""


class AccessLogFormat(enum.Enum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """Where and how each request is written down."""

    path: str = "/dev/stdout"
    format: AccessLogFormat = AccessLogFormat.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """When a span is made for a request that brings no decision of its own."""

    sampling_percent: float = 0.0
    """0 to 100. Source: HttpConnectionManager.Tracing.random_sampling."""
    collector_cluster: str = ""
    """The cluster that spans are exported to (OTLP over gRPC)."""
    service_name: str = ""


class UnderscoreAction(enum.Enum):
    """What to do with headers whose name holds an underscore: some servers read `a_b` as `a-b`."""

    ALLOW = "allow"
    REJECT = "reject"
    """400."""
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrency:
    """A limit on requests in flight that follows the measured latency. Source: Envoy filters.http.adaptive_concurrency.v3."""

    config: AdaptiveConfig
    exceeded_status: int = 503
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilter:
    """An HTTP connection manager. Defaults are Envoy's unless said."""

    stat_prefix: str = "http"
    route_table: str = ""
    """Name in `Snapshot.route_tables` (RDS); used when `inline_routes` is None."""
    inline_routes: RouteTable | None = None
    tracing: Tracing | None = None
    """None: trace headers pass unchanged if they are valid."""
    access_log: AccessLog | None = None
    use_remote_address: bool = False
    """True at an edge: append the peer to x-forwarded-for and don't trust what came."""
    generate_request_id: bool = True
    """Set x-request-id when the request has none."""
    preserve_external_request_id: bool = False
    """Keep an x-request-id that came from outside through an edge (`use_remote_address`)."""
    server_name: str = "meshwork"
    """The `server` header of responses that carry none. DEVIATION: Envoy overwrites it by default."""
    upgrades: frozenset[str] = frozenset({"websocket"})
    """Protocols, lower case, that Upgrade may switch to."""
    request_headers_timeout_s: float = 15.0
    """From the first byte of a request to the end of its header block. DEVIATION: Envoy sets no limit."""
    idle_timeout_s: float = 3600.0
    """Close a downstream connection without a request after this. Source: HCM common_http_protocol_options."""
    stream_idle_timeout_s: float = 300.0
    """End a request when nothing moved for this long."""
    max_header_bytes: int = 61440
    """Request line and header block together, 60 KiB. Source: HCM max_request_headers_kb."""
    max_header_count: int = 100
    """Source: HttpProtocolOptions.max_headers_count."""
    filters: tuple[FilterKind, ...] = ()
    """The filters before the router, in order, each at most once. One without settings does nothing until a route has some."""
    settings: FilterSettings = NO_SETTINGS
    """Their settings, where no virtual host or route has its own."""
    adaptive: AdaptiveConcurrency | None = None
    """The setting of ADAPTIVE_CONCURRENCY, when it is among `filters`."""
    adds_server: bool = True
    """Whether responses without `server` get ours. False: server_header_transformation PASS_THROUGH."""
    normalize_path: bool = False
    """Resolve dot segments before routing (RFC 3986 s6). Source: HCM normalize_path."""
    merge_slashes: bool = False
    """Make one slash of several in the path. Source: HCM merge_slashes."""
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP_UNCHANGED
    """Source: HCM path_with_escaped_slashes_action."""
    via: str = ""
    """Appended to the Via header of requests and responses; empty: nothing. Source: HCM via."""
    trusted_hops: int = 0
    """How many proxies in front may be believed about x-forwarded-for, >= 0. Source: HCM xff_num_trusted_hops."""
    skip_xff_append: bool = False
    """With `use_remote_address`: do not append the peer. Source: HCM skip_xff_append."""
    underscores: UnderscoreAction = UnderscoreAction.ALLOW
    """Source: HttpProtocolOptions.headers_with_underscores_action."""
    max_requests_per_connection: int = 0
    """Close a downstream connection after so many. 0: no limit. Source: HttpProtocolOptions."""
    max_connection_duration_s: float = 0.0
    """Drain a downstream connection after this. 0: no limit. Source: HttpProtocolOptions."""
    request_timeout_s: float = 0.0
    """From the start of a request to its last byte. 0: no limit. Source: HCM request_timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpFilter:
    """A TCP proxy."""

    stat_prefix: str = "tcp"
    clusters: tuple[WeightedCluster, ...]
    idle_timeout_s: float = 3600.0
    """Source: TcpProxy.idle_timeout."""
    access_log: AccessLog | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChain:
    """What is done with a connection that matches."""

    name: str = ""
    destination_port: int | None = None
    """The original destination's port; None matches any."""
    detected_http: bool = False
    """Only for connections whose first bytes are HTTP/1.x (application_protocols http/1.0, http/1.1 behind an
    http_inspector)."""
    filter: HttpFilter | TcpFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where connections come in, or (bind false) are handed over from one that does."""

    name: str
    address: str
    port: int
    """0 to 65535; 0 binds any free port."""
    bind: bool = True
    """False: reached through a listener with `use_original_dst`, by original destination."""
    use_original_dst: bool = False
    """Hand each connection to the listener that owns its original destination: `ADDRESS:PORT` first, then
    `0.0.0.0:PORT`, then this listener's own chains."""
    direction: Direction = Direction.OUTBOUND
    chains: tuple[FilterChain, ...] = ()
    """The most specific match wins: port before any, detected before not; then the order given."""
    detect_timeout_s: float = 5.0
    """How long a chain with `detected_http` may hold a silent connection before it goes on as TCP. > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A set of endpoints and the rules for using them."""

    name: str
    kind: ClusterKind = ClusterKind.STATIC
    endpoints: tuple[Endpoint, ...] = ()
    lb_policy: LbPolicy = LbPolicy.ROUND_ROBIN
    choice_count: int = 2
    """For LEAST_REQUEST: how many are drawn and compared, >= 2."""
    connect_timeout_s: float = 5.0
    """Source: Cluster.connect_timeout."""
    idle_timeout_s: float = 60.0
    """Close an upstream connection unused for this long. DEVIATION: Envoy 3600; servers often close after 60 to 75,
    and a connection closed by the side that reuses it cannot fail a request."""
    max_requests_per_connection: int = 0
    """0: no limit."""
    max_stream_duration_s: float | None = None
    """One attempt ends after this, however much moves (flag UMSDR). None: no limit. Seconds, > 0.
    Source: common_http_protocol_options.max_stream_duration."""
    limits: CircuitLimits = DEFAULT_LIMITS
    outlier: OutlierConfig | None = None
    health_checks: tuple[HealthCheck, ...] = ()
    """Active checks of the endpoints; at most one, as Envoy."""
    ignores_new_hosts_until_checked: bool = False
    """An endpoint that joins is not counted at all, not even in a panic, before its first check has ended. Source:
    common_lb_config.ignore_new_hosts_until_first_hc."""
    panic_threshold_percent: float = 50.0
    """Below this share of usable endpoints all are used. Source: common_lb_config.healthy_panic_threshold."""
    overprovisioning_percent: int = 140
    """From the endpoints' `LoadAssignment`."""
    balance: BalanceOptions = DEFAULT_OPTIONS
    """What the policy, localities, subsets and new endpoints need to know."""
    provenance: Provenance | None = None

    @property
    def is_inbound(self) -> bool:
        return self.name.startswith("inbound|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One consistent configuration. A request reads the same one for its whole life."""

    version: str = ""
    listeners: tuple[Listener, ...] = ()
    route_tables: Mapping[str, RouteTable] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What a bootstrap file says."""

    snapshot: Snapshot
    admin: tuple[str, int] | None = None
    """Where the admin interface listens; None: nowhere."""
    node_id: str = ""
    cluster: str = ""
