"""What a route rewrites in a request's head, and what it tells the upstream about it. Off the hot path: done once per template."""

from dataclasses import dataclass

from mesh.http.request import RequestHead
from mesh.routing.matcher import CompiledRoute
from mesh.routing.rewrite import rewrite_host, rewrite_target
from mesh.routing.table import Forward

_FORWARDED_HOST = b"x-forwarded-host"
_ORIGINAL_HOST = b"x-envoy-original-host"
_ORIGINAL_PATH = b"x-envoy-original-path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The new request line's parts, and header lines that replace those of their names."""

    target: bytes
    authority: bytes
    lines: tuple[bytes, ...] = ()
    names: frozenset[bytes] = frozenset()


def rewrites_anything(compiled: CompiledRoute | None) -> bool:
    """Whether requests of this route must go through `rewrite_head`."""
    action = compiled.route.action if compiled is not None else None
    if not isinstance(action, Forward):
        return False
    own = (
        action.prefix_rewrite,
        action.regex_rewrite,
        action.host_rewrite,
        action.host_rewrite_header,
        action.host_rewrite_regex,
    )
    return any(one is not None for one in (*own, *(branch.host_rewrite for branch in action.clusters)))


def rewrite_head(compiled: CompiledRoute, branch: int, head: RequestHead) -> Rewritten:
    """Source: Envoy: x-envoy-original-path, x-envoy-original-host, append_x_forwarded_host."""
    action = compiled.route.action
    assert isinstance(action, Forward)
    target = rewrite_target(action, compiled.route.match.path, head.target)
    authority = rewrite_host(action, action.clusters[branch], head)
    lines: list[bytes] = []
    names: set[bytes] = set()
    if target != head.target:
        names.add(_ORIGINAL_PATH)
        lines.append(_ORIGINAL_PATH + b": " + head.target)
    if authority != head.authority:
        names.add(_ORIGINAL_HOST)
        lines.append(_ORIGINAL_HOST + b": " + head.authority)
        if action.append_forwarded_host:
            lines += _forwarded_host(head)
            names.add(_FORWARDED_HOST)
    return Rewritten(target=target, authority=authority, lines=tuple(lines), names=frozenset(names))


def _forwarded_host(head: RequestHead) -> list[bytes]:
    before = head.header(_FORWARDED_HOST)
    hosts = before.split(b",") if before else []
    if not hosts or hosts[-1].strip(b" \t") != head.authority:
        hosts.append(head.authority)
    return [_FORWARDED_HOST + b": " + b",".join(hosts)]


def allowed_upgrades(compiled: CompiledRoute | None, listener: frozenset[str]) -> frozenset[str]:
    """The protocols that requests of this route may switch to: the listener's, unless the route says otherwise."""
    action = compiled.route.action if compiled is not None else None
    if not isinstance(action, Forward) or not action.upgrades:
        return listener
    own = dict(action.upgrades)
    return frozenset(name for name in {*listener, *own} if own.get(name, True))
