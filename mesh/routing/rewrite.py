"""What a route does to the request's target and Host, and to header blocks; where a redirect leads."""

from collections.abc import Iterable

from mesh.routing.conditions import RoutedRequest
from mesh.routing.errors import RouteTableError
from mesh.routing.headers import HeaderMutation, HeaderValue, Presence
from mesh.routing.match import PathKind, PathMatch
from mesh.routing.regex import compile_substitution
from mesh.routing.table import Action, Forward, Redirect, RegexRewrite, WeightedCluster

_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def check_rewrites(action: Action, where: str) -> None:
    """Raises RouteTableError when a regular expression or its substitution is wrong. `where` names the route."""
    rewrites: list[RegexRewrite | None] = []
    if isinstance(action, Forward):
        rewrites = [action.regex_rewrite, action.host_rewrite_regex]
    elif isinstance(action, Redirect):
        rewrites = [action.regex_rewrite]
    for rewrite in rewrites:
        if rewrite is not None:
            try:
                compile_substitution(rewrite.pattern, rewrite.substitution)
            except RouteTableError as exc:
                raise RouteTableError(f"{where}: {exc}") from exc


def _substitute(rewrite: RegexRewrite, text: bytes) -> bytes:
    return compile_substitution(rewrite.pattern, rewrite.substitution)(text)


def rewrite_target(action: Forward, match: PathMatch, target: bytes) -> bytes:
    """The target to send upstream. The query is kept."""
    if action.prefix_rewrite is None and action.regex_rewrite is None:
        return target
    path, mark, query = target.partition(b"?")
    if action.prefix_rewrite is not None:
        path = _replace_prefix(path, match, action.prefix_rewrite.encode())
    elif action.regex_rewrite is not None:
        path = _substitute(action.regex_rewrite, path)
    return _rooted(path) + mark + query


def _rooted(path: bytes) -> bytes:
    """DEVIATION: Envoy sends a path without a slash as it is; no server understands it."""
    return path if path[:1] == b"/" else b"/" + path


def _replace_prefix(path: bytes, match: PathMatch, rewrite: bytes) -> bytes:
    if match.kind in (PathKind.EXACT, PathKind.REGEX):
        return rewrite
    matched = match.value.encode()
    if match.kind is PathKind.SEGMENT_PREFIX:
        # DEVIATION: Envoy makes `//x` of `/api/x` when `/api` is rewritten to `/`; nobody wants that (Istio works around it).
        matched = matched.rstrip(b"/")
        rewrite = rewrite.rstrip(b"/")
        return rewrite + path[len(matched) :] or b"/"
    return rewrite + path[len(matched) :]


def rewrite_host(action: Forward, branch: WeightedCluster, request: RoutedRequest) -> bytes:
    """The Host to send upstream."""
    literal = branch.host_rewrite or action.host_rewrite
    if literal is not None:
        return literal.encode()
    if action.host_rewrite_header is not None:
        return request.header(action.host_rewrite_header.encode()) or request.authority
    if action.host_rewrite_regex is not None:
        return _substitute(action.host_rewrite_regex, request.path)
    return request.authority


def redirect_location(redirect: Redirect, match: PathMatch, request: RoutedRequest) -> bytes:
    """The Location of a redirect, as an absolute URL. Source: Envoy RedirectAction."""
    scheme = redirect.scheme.encode() or request.scheme
    if redirect.host:
        host = redirect.host.encode()
    else:
        host, port = split_port(request.authority)
        is_default = scheme != request.scheme and port == _DEFAULT_PORTS.get(request.scheme)
        if port and not redirect.port and not is_default:
            host = request.authority
    if redirect.port:
        host += b":%d" % redirect.port
    return scheme + b"://" + host + _redirect_target(redirect, match, request.target)


def _redirect_target(redirect: Redirect, match: PathMatch, target: bytes) -> bytes:
    path, mark, query = target.partition(b"?")
    tail = b"" if redirect.strip_query else mark + query
    if redirect.path:
        path = redirect.path.encode()
        return path if b"?" in path else path + tail
    if redirect.prefix_rewrite:
        path = _rooted(_replace_prefix(path, match, redirect.prefix_rewrite.encode()))
    elif redirect.regex_rewrite is not None:
        path = _rooted(_substitute(redirect.regex_rewrite, path))
    return path + tail


def split_port(authority: bytes) -> tuple[bytes, bytes]:
    """(host, port) of an authority; the port is empty when there is none. An IPv6 address keeps its brackets."""
    host, colon, port = authority.rpartition(b":")
    return (host, port) if colon and port.isdigit() else (authority, b"")


def mutate_lines(lines: list[bytes], mutations: Iterable[HeaderMutation]) -> list[bytes]:
    """Apply header changes, one level after the other, to lines without CRLF; the lines given are not changed.

    Within a level: removals, then what replaces, then what is added; conditions look at the block before the level's additions.
    """
    for mutation in mutations:
        lines = without_names(lines, {name.lower().encode() for name in mutation.remove})
        values = [value for value in mutation.add if value.when is Presence.ANY or _applies(value, lines)]
        lines = without_names(lines, {value.name.lower().encode() for value in values if not value.append})
        # Several values of one name that replace: the last one stands, as when Envoy sets them one after the other.
        replaced = {value.name.lower(): value for value in values if not value.append}
        added = [*replaced.values(), *(value for value in values if value.append)]
        lines = lines + [f"{value.name}: {value.value}".encode() for value in added]
    return lines


def _applies(value: HeaderValue, lines: list[bytes]) -> bool:
    name = value.name.lower().encode()
    has = any(line.partition(b":")[0].lower() == name for line in lines)
    return has is (value.when is Presence.PRESENT)


def without_names(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """The lines without those headers (lower case)."""
    if not names:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
