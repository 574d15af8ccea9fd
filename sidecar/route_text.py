"""Routes in words, for people who look at what a proxy holds."""

from collections.abc import Iterator

from mesh.routing.filters import FilterSettings
from mesh.routing.match import HeaderMatch, QueryMatch
from mesh.routing.table import DirectResponse, Forward, Redirect, Route, RouteTable, VirtualHost


def match_text(route: Route) -> str:
    """The conditions of a route."""
    match = route.match
    conditions = [f"{match.path.kind.value} {match.path.value}"]
    conditions += [_header(header) for header in match.headers]
    conditions += [_query(query) for query in match.query]
    if match.share < 1.0:
        conditions.append(_percent(match.share))
    return ", ".join(conditions)


def _header(header: HeaderMatch) -> str:
    wanted = " present"
    if header.match is not None:
        wanted = f" {header.match.kind.value} {header.match.value}"
    elif header.range is not None:
        wanted = f" from {header.range.start} to below {header.range.end}"
    return f"{'not ' if header.invert else ''}{header.name}{wanted}"


def _query(query: QueryMatch) -> str:
    if query.is_absent:
        return f"not ?{query.name}"
    return f"?{query.name}" if query.match is None else f"?{query.name} {query.match.kind.value} {query.match.value}"


def action_text(route: Route) -> str:
    """Where it leads."""
    action = route.action
    if isinstance(action, DirectResponse):
        return f"answer {action.status}"
    if isinstance(action, Redirect):
        return f"redirect {action.status}"
    if len(action.clusters) == 1:
        return action.clusters[0].name
    return ", ".join(f"{one.name} {one.weight}" for one in action.clusters)


def extras_text(table: RouteTable, host: VirtualHost, route: Route) -> str:
    """What else is done to its requests, also by settings of its virtual host and table."""
    settings = route.filters.over(host.filters.over(table.filters))
    found = list(_of_settings(settings))
    action = route.action
    if isinstance(action, Forward):
        for branch in action.clusters:
            found += [f"{text} on {branch.name}" for text in _of_settings(branch.filters)]
        mirrors = action.mirrors or host.mirrors or table.mirrors
        found += [f"mirror {one.cluster} {_percent(one.share)}" for one in mirrors]
        found += [f"hash {one.source.value} {one.name}".rstrip() for one in action.hash_policies]
        if action.split_header is not None:
            found.append(f"split by {action.split_header}")
        elif action.split_by_hash:
            found.append("split by hash")
        if action.prefix_rewrite is not None:
            found.append(f"path to {action.prefix_rewrite}")
        elif action.regex_rewrite is not None:
            found.append(f"path to {action.regex_rewrite.substitution}")
    return ", ".join(found)


def _of_settings(settings: FilterSettings) -> Iterator[str]:
    if settings.cors is not None:
        yield "CORS"
    if settings.fault is not None:
        policy = settings.fault.policy
        if policy.delay_percent:
            yield f"delay {policy.delay_s:g} s {policy.delay_percent:g} %"
        if policy.abort_percent:
            yield f"abort {policy.abort_status} {policy.abort_percent:g} %"
    if settings.rate_limit is not None and settings.rate_limit.bucket is not None:
        bucket = settings.rate_limit.bucket
        yield f"limit {bucket.tokens_per_fill} per {bucket.fill_interval_s:g} s, burst {bucket.max_tokens}"
    if settings.session is not None:
        yield f"session by {settings.session.cookie or settings.session.header}"
    yield from sorted(f"no {kind.value}" for kind in settings.disabled)


def _percent(share: float) -> str:
    return f"{share * 100:g} %"
