"""Makes a route's filters, once per snapshot: the listener's in their order, then what the router itself does."""

from typing import TYPE_CHECKING

from mesh.routing.filters import NO_SETTINGS, FilterKind, FilterSettings
from mesh.routing.mirror import Mirror
from mesh.routing.table import Forward
from sidecar.filters.adaptive import AdaptiveFilter
from sidecar.filters.cors import CorsFilter
from sidecar.filters.fault import FaultFilter
from sidecar.filters.hashing import HashFilter, HeaderSplitFilter
from sidecar.filters.mirror import DEFAULT_TIMEOUT_S, MirrorFilter, MirrorTarget
from sidecar.filters.protocol import Filters, PerBranch, RequestFilter
from sidecar.filters.rate_limit import RateLimitFilter
from sidecar.filters.session import SessionFilter
from sidecar.timers import NEVER

if TYPE_CHECKING:
    from sidecar.runtime import RouteRuntime


def build_filters(route: "RouteRuntime") -> Filters:
    """Everything that is done to the route's requests; empty for most routes. Call it when branches and timeouts are known."""
    chain = _listener_filters(route) if route.runtime.filter.filters else []
    return (*_split_filters(route), *chain, *_mirror_filter(route))


def _split_filters(route: "RouteRuntime") -> list[RequestFilter]:
    """First: which branch it is decides on settings of the others."""
    action = route.compiled.route.action if route.compiled is not None else None
    if not isinstance(action, Forward):
        return []
    found: list[RequestFilter] = []
    if action.split_header is not None and not route.is_single:
        found.append(HeaderSplitFilter(action.split_header))
    splits = action.split_by_hash and not route.is_single
    if action.hash_policies and (splits or any(one.cluster and one.cluster.is_hashing for one in route.branches)):
        found.append(HashFilter(action.hash_policies, splits=splits))
    return found


def _mirror_filter(route: "RouteRuntime") -> list[RequestFilter]:
    compiled = route.compiled
    if compiled is None or not isinstance(compiled.route.action, Forward):
        return []
    mirrors: tuple[Mirror, ...] = (
        compiled.route.action.mirrors or compiled.host.mirrors or route.runtime.table.table.mirrors
    )
    if not mirrors:
        return []
    clusters = route.runtime.clusters
    targets = [MirrorTarget(mirror, clusters.get(mirror.cluster)) for mirror in mirrors]
    return [MirrorFilter(targets, DEFAULT_TIMEOUT_S if route.timeout_s == NEVER else route.timeout_s)]


def _listener_filters(route: "RouteRuntime") -> list[RequestFilter]:
    levels = [_merged(branch) for branch in _branch_levels(route)]
    found: list[RequestFilter] = []
    for kind in route.runtime.filter.filters:
        if all(level == levels[0] for level in levels):
            one = _make(kind, route, levels[0], 0)
            if one is not None:
                found.append(one)
            continue
        per_branch = [_make(kind, route, level, at) for at, level in enumerate(levels)]
        if any(one is not None for one in per_branch):
            found.append(PerBranch(per_branch))
    return found


Levels = tuple[tuple[str, FilterSettings], ...]
"""Settings from the outermost level to the innermost, each with its name."""


def _branch_levels(route: "RouteRuntime") -> list[Levels]:
    """The levels of every branch; of the route alone when it does not forward."""
    runtime, compiled = route.runtime, route.compiled
    table = runtime.table.table
    outer: Levels = (("the listener", runtime.filter.settings), (f'route table "{table.name}"', table.filters))
    if compiled is None:
        return [outer]
    host, own = compiled.host, compiled.route
    outer = (
        *outer,
        (f'virtual host "{host.name}"', host.filters),
        (f'route "{host.name}/{own.name or compiled.at}"', own.filters),
    )
    if not isinstance(own.action, Forward):
        return [outer]
    return [
        (*outer, (f'{outer[-1][0]}, branch {at} "{branch.name}"', branch.filters))
        for at, branch in enumerate(own.action.clusters)
    ]


def _merged(levels: Levels) -> FilterSettings:
    settings = NO_SETTINGS
    for _, own in levels:
        settings = own.over(settings)
    return settings


def _make(kind: FilterKind, route: "RouteRuntime", settings: FilterSettings, branch: int) -> RequestFilter | None:
    """The filter of one kind; None when it has nothing to do."""
    if kind in settings.disabled:
        return None
    state = route.runtime.state
    match kind:
        case FilterKind.CORS:
            return CorsFilter(settings.cors) if settings.cors is not None else None
        case FilterKind.FAULT:
            return FaultFilter(settings.fault, state) if settings.fault is not None else None
        case FilterKind.LOCAL_RATE_LIMIT:
            limit = settings.rate_limit
            if limit is None or limit.bucket is None:
                return None
            where = next(name for name, own in reversed(_branch_levels(route)[branch]) if own.rate_limit is not None)
            return RateLimitFilter(limit, state.bucket(where, limit.bucket), where)
        case FilterKind.ADAPTIVE_CONCURRENCY:
            adaptive = route.runtime.filter.adaptive
            if adaptive is None or not adaptive.enabled:
                return None
            return AdaptiveFilter(state.adaptive_limit(adaptive.config), adaptive.exceeded_status)
        case FilterKind.STATEFUL_SESSION:
            return SessionFilter(settings.session) if settings.session is not None else None
