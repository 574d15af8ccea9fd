"""What routes do -> RouteAction and RedirectAction. Pure."""

from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2

from controlplane.discovery.build_clusters import BLACK_HOLE, outbound_name
from controlplane.discovery.facts import ServiceFacts
from controlplane.discovery.messages import duration, fractional_percent, uint32
from mesh.routing.table import HeaderMutation, PathKind, RegexRewrite
from policies.traffic import CompiledDestinationRule, HashKey, HashSource
from policies.values import Destination, Forward, Match, Mirror, PortOf, RedirectTo, Retry

_REDIRECT_CODES = {301: 0, 302: 1, 303: 2, 307: 3, 308: 4}
_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
_MAX_BACK_OFF_FACTOR = 10
"""Source: Envoy's RetryBackOff: the longest wait is ten times the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a destination names, as it is now."""

    host: str
    subset: str
    service: ServiceFacts | None
    exists: bool
    """There is no subset, or it is defined."""
    rule: CompiledDestinationRule | None = None
    """The host's rule, where one of its clusters goes by a key."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The destinations of a host's routes, and the port its clients addressed."""

    port: int
    known: tuple[Target, ...]

    def _find(self, destination: Destination) -> Target | None:
        wanted = destination.host, destination.subset
        return next((target for target in self.known if (target.host, target.subset) == wanted), None)

    def port_of(self, destination: Destination) -> int:
        """The service port that is meant; 0 when the destination does not exist (any more)."""
        target = self._find(destination)
        if target is None or target.service is None or not target.exists:
            return 0
        return _port_of(target.service, destination.port, self.port)

    def cluster(self, destination: Destination) -> str:
        """Its cluster, or the black hole when it does not exist: 503, and the rest goes on."""
        port = self.port_of(destination)
        return outbound_name(destination.host, port, destination.subset) if port else BLACK_HOLE

    def hash_key(self, destination: Destination) -> HashKey | None:
        """What of a request decides about its endpoint; None when nothing does."""
        target, port = self._find(destination), self.port_of(destination)
        if target is None or target.rule is None or not port:
            return None
        return target.rule.cluster_settings(destination.subset, port).hash_key


def _port_of(service: ServiceFacts, wanted: int, asked: int) -> int:
    """The named port, else the service's only one, else the one the client addressed; 0 when there is no such port."""
    if wanted:
        return wanted if service.port(wanted) else 0
    if len(service.ports) == 1:
        return service.ports[0].number
    return asked if service.port(asked) else 0


def forward_action(action: Forward, match: Match, targets: Targets) -> tuple[Any, set[str]]:
    """The RouteAction and the clusters it names."""
    built = route_components_pb2.RouteAction(timeout=duration(action.timeout_s or 0))
    branches = [(destination, targets.cluster(destination)) for destination in action.destinations]
    clusters = {name for _, name in branches}
    first, name = branches[0]
    is_plain = not (first.request_headers or first.response_headers or first.host_rewrite)
    if len(branches) == 1 and is_plain:
        built.cluster = name
    else:
        for destination, name in branches:
            built.weighted_clusters.clusters.append(_branch(destination, name))
    if action.retry.attempts:
        built.retry_policy.CopyFrom(retry_policy(action.retry))
    if action.host_rewrite:
        built.host_rewrite_literal = action.host_rewrite
    _rewrite_path(built, action, match)
    for mirror in action.mirrors:
        if mirror.percent > 0 and (cluster := targets.cluster(mirror.destination)) != BLACK_HOLE:
            built.request_mirror_policies.append(_mirror(mirror, cluster))
            clusters.add(cluster)
    keys = (targets.hash_key(destination) for destination in action.destinations)
    built.hash_policy.extend(hash_policy(key) for key in dict.fromkeys(keys) if key is not None)
    return built, clusters


def _mirror(mirror: Mirror, cluster: str) -> Any:
    built = route_components_pb2.RouteAction.RequestMirrorPolicy(cluster=cluster)
    built.runtime_fraction.default_value.CopyFrom(fractional_percent(mirror.percent))
    return built


def hash_policy(key: HashKey) -> Any:
    """RouteAction.HashPolicy."""
    built = route_components_pb2.RouteAction.HashPolicy()
    match key.source:
        case HashSource.HEADER:
            built.header.header_name = key.name
        case HashSource.COOKIE:
            built.cookie.name = key.name
            built.cookie.path = key.path
            if key.ttl_s is not None:
                built.cookie.ttl.CopyFrom(duration(key.ttl_s))
        case HashSource.QUERY:
            built.query_parameter.name = key.name
        case HashSource.SOURCE_IP:
            built.connection_properties.source_ip = True
    return built


def _rewrite_path(built: Any, action: Forward, match: Match) -> None:
    """Envoy's prefix_rewrite replaces what matched: a prefix, or the whole exact path."""
    if action.regex_rewrite is not None:
        set_regex(built.regex_rewrite, action.regex_rewrite)
    replacement = action.prefix_rewrite
    if not replacement:
        return
    path = match.request.path
    if path.kind is PathKind.PREFIX and path.value == "/" and replacement != "/":
        replacement = replacement.rstrip("/") + "/"  # "/a" -> "/v2/a", not "/v2a"
    built.prefix_rewrite = replacement


def set_regex(built: Any, rewrite: RegexRewrite) -> None:
    """type.matcher.v3.RegexMatchAndSubstitute."""
    built.pattern.regex = rewrite.pattern
    built.substitution = rewrite.substitution


def _branch(destination: Destination, name: str) -> Any:
    branch = route_components_pb2.WeightedCluster.ClusterWeight(name=name, weight=uint32(destination.weight))
    mutate(branch, destination.request_headers, destination.response_headers)
    if destination.host_rewrite:
        branch.host_rewrite_literal = destination.host_rewrite
    return branch


def retry_policy(retry: Retry) -> Any:
    """RetryPolicy."""
    conditions = list(retry.retry_on)
    if retry.statuses and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    policy = route_components_pb2.RetryPolicy(
        retry_on=",".join(conditions),
        num_retries=uint32(retry.attempts),
        retriable_status_codes=retry.statuses,
    )
    if retry.prefers_new_hosts:
        policy.host_selection_retry_max_attempts = 5
        predicate = policy.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
        predicate.typed_config.Pack(previous_hosts_pb2.PreviousHostsPredicate())
    if retry.per_try_timeout_s:
        policy.per_try_timeout.CopyFrom(duration(retry.per_try_timeout_s))
    if retry.back_off_s:
        policy.retry_back_off.base_interval.CopyFrom(duration(retry.back_off_s))
        policy.retry_back_off.max_interval.CopyFrom(duration(retry.back_off_s * _MAX_BACK_OFF_FACTOR))
    for name in retry.headers:
        policy.retriable_headers.add(name=name, present_match=True)
    return policy


def redirect_action(redirect: RedirectTo, port: int) -> Any:
    """RedirectAction, for requests that address `port`."""
    built = route_components_pb2.RedirectAction(
        host_redirect=redirect.host,
        port_redirect=_redirect_port(redirect, port),
        response_code=_REDIRECT_CODES[redirect.status],
    )
    if redirect.scheme:
        built.scheme_redirect = redirect.scheme
    if redirect.regex is not None:
        set_regex(built.regex_rewrite, redirect.regex)
    elif redirect.prefix:
        built.prefix_rewrite = redirect.prefix
    elif redirect.path:
        built.path_redirect = redirect.path
    return built


def _redirect_port(redirect: RedirectTo, port: int) -> int:
    match redirect.port_of:
        case PortOf.LOCATION:
            return redirect.port
        case PortOf.REQUEST:
            return 0 if port == _WELL_KNOWN_PORTS.get(redirect.scheme or "http") else port
        case PortOf.SCHEME:
            # Envoy drops the other scheme's well-known port by itself, and a new host comes without one.
            is_dropped = redirect.host or port in _WELL_KNOWN_PORTS.values()
            return 0 if is_dropped else _WELL_KNOWN_PORTS.get(redirect.scheme, 0)


def mutate(message: Any, request: HeaderMutation, response: HeaderMutation) -> None:
    """The four fields of header changes."""
    for kind, mutation in (("request", request), ("response", response)):
        for header in mutation.add:
            getattr(message, f"{kind}_headers_to_add").add(
                header=base_pb2.HeaderValue(key=header.name, value=header.value),
                append_action=base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
                if header.append
                else base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
        getattr(message, f"{kind}_headers_to_remove").extend(mutation.remove)
