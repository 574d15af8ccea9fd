"""Compiled policies: validated, defaults filled in, references resolved, every rule with its provenance."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mesh.routing.table import DirectResponse, HeaderMutation, Provenance, RegexRewrite, RouteMatch, StringMatch

ANY_REQUEST = RouteMatch()
NO_MUTATION = HeaderMutation()
UNKNOWN = Provenance()
SAFE_RETRY_ON = ("connect-failure", "refused-stream", "reset-before-request")
"""Conditions under which the upstream has proved not to have begun the request, so that repeating it is safe for any method."""
DEFAULT_RETRY_ATTEMPTS = 2
"""Source: Istio. DEVIATION: Istio also retries on 503, which repeated POSTs (istio issue 50506)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and on what a request is tried again."""

    attempts: int = DEFAULT_RETRY_ATTEMPTS
    """Tries after the first, >= 0; 0 turns retries off."""
    per_try_timeout_s: float | None = None
    """None: only the route's timeout counts."""
    retry_on: tuple[str, ...] = SAFE_RETRY_ON
    """Envoy's names."""
    statuses: tuple[int, ...] = ()
    """HTTP statuses that are retried as well."""
    headers: tuple[str, ...] = ()
    """For retriable-headers: an answer that has one of these is retried."""
    back_off_s: float | None = None
    """Base of the jittered, growing wait. None: Envoy's 25 ms."""
    prefers_new_hosts: bool = True
    """Not to a host that was tried already, if there is another."""


DEFAULT_RETRY = Retry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a request must look like, and who must send it."""

    request: RouteMatch = ANY_REQUEST
    port: int = 0
    """The port the client addressed; 0 is any."""
    source_labels: tuple[tuple[str, str], ...] = ()
    """Labels of the client's pod, sorted."""
    source_namespace: str = ""
    name: str = ""
    """Added to the route's name."""
    stat_prefix: str = ""

    @property
    def condition(self) -> "Match":
        """The match without its names: equal conditions are true for the same requests."""
        return replace(self, name="", stat_prefix="") if self.name or self.stat_prefix else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One branch of a split."""

    host: str
    """Fully qualified."""
    subset: str = ""
    port: int = 0
    """0: the service's only port, or the one the client addressed."""
    weight: int = 1
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    host_rewrite: str | None = None
    provenance: Provenance = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where copies of requests go; the answers are dropped."""

    destination: Destination
    percent: float = 100.0
    """0 to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request on."""

    destinations: tuple[Destination, ...]
    """At least one; the weights sum to more than 0."""
    timeout_s: float | None = None
    """Whole request with all its tries. None: no limit. Source: Istio's default."""
    retry: Retry = DEFAULT_RETRY
    prefix_rewrite: str | None = None
    regex_rewrite: RegexRewrite | None = None
    host_rewrite: str | None = None
    mirrors: tuple[Mirror, ...] = ()


class PortOf(enum.Enum):
    """Which port a redirect names."""

    LOCATION = "location"
    """The one given; without one, as the request or the new scheme implies."""
    REQUEST = "request"
    """The one the client addressed."""
    SCHEME = "scheme"
    """The new scheme's well-known one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectTo:
    """Answer with a Location. Empty fields keep the request's part; at most one of path, prefix and regex."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    port_of: PortOf = PortOf.LOCATION
    path: str = ""
    prefix: str = ""
    """Replaces the matched prefix."""
    regex: RegexRewrite | None = None
    status: int = 301


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """What scripts of other origins may do. Empty tuples and None: the header is not sent."""

    origins: tuple[StringMatch, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposes: tuple[str, ...] = ()
    max_age_s: int | None = None
    allows_credentials: bool | None = None
    forwards_unmatched: bool = True
    """A preflight whose origin does not match goes on to the upstream. Source: Istio's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Trouble made on purpose; percentages 0 to 100."""

    delay_s: float | None = None
    delay_percent: float = 0.0
    abort_status: int | None = None
    abort_percent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One endpoint for all requests of a session, as long as it is usable."""

    name: str
    """Of the cookie or the header."""
    is_header: bool = False
    path: str = "/"
    """Of the cookie."""
    ttl_s: float | None = None
    """Lifetime of the cookie; None: until the browser is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRoute:
    """One entry of spec.http, or one match of an HTTPRoute."""

    name: str
    matches: tuple[Match, ...]
    """One of them must hold; at least one."""
    action: Forward | RedirectTo | DirectResponse
    cors: Cors | None = None
    fault: Fault | None = None
    session: Session | None = None
    repeats_any: bool = False
    """A retry may repeat any request, whatever of it was sent (meshwork.dev/replay: any)."""
    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Whose proxies see a policy."""

    namespaces: frozenset[str] = frozenset()
    """Empty: all."""

    def includes(self, namespace: str) -> bool:
        """Whether proxies of `namespace` see it."""
        return not self.namespaces or namespace in self.namespaces


EVERYWHERE = Visibility()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledVirtualService:
    """Routes for a set of hosts."""

    key: str
    """namespace/name."""
    generation: int
    created: str
    """creationTimestamp; of two for the same host the older one counts."""
    hosts: tuple[str, ...]
    routes: tuple[CompiledRoute, ...]
    """In order; the first that matches decides. A request that none matches is answered 404."""
    visibility: Visibility = EVERYWHERE
    is_for_sidecars: bool = True
    """`gateways` is absent or names `mesh`."""
    ports: frozenset[int] = frozenset()
    """Ports of the hosts it is about; requests to others take the default route. Empty: all."""
    provenance: Provenance

    def destinations(self) -> Iterator[Destination]:
        """Every destination of its routes, mirrors included."""
        for route in self.routes:
            if isinstance(route.action, Forward):
                yield from route.action.destinations
                yield from (mirror.destination for mirror in route.action.mirrors)
