"""What a route does to the request's target and to header blocks; where a redirect leads."""

import re

from mesh.routing.table import Forward, HeaderMutation, PathKind, PathMatch, Redirect


def rewrite_target(action: Forward, match: PathMatch, target: bytes) -> bytes:
    """The target to send upstream. The query is kept."""
    path, mark, query = target.partition(b"?")
    if action.prefix_rewrite is not None:
        path = _replace_prefix(path, match, action.prefix_rewrite.encode())
    elif action.regex_rewrite is not None:
        path = re.sub(action.regex_rewrite.pattern.encode(), action.regex_rewrite.substitution.encode(), path)
    else:
        return target
    if path[:1] != b"/":
        path = b"/" + path
    return path + mark + query


def _replace_prefix(path: bytes, match: PathMatch, rewrite: bytes) -> bytes:
    if match.kind in (PathKind.EXACT, PathKind.REGEX):
        return rewrite
    matched = match.value.encode()
    if match.kind is PathKind.SEGMENT_PREFIX:
        matched = matched.rstrip(b"/")
        rewrite = rewrite.rstrip(b"/")
    return rewrite + path[len(matched) :]


def redirect_location(redirect: Redirect, match: PathMatch, authority: bytes, target: bytes) -> bytes:
    """The Location of a redirect of `target` on `authority`, as an absolute URL."""
    scheme = redirect.scheme.encode() or b"http"
    host = authority
    if redirect.host:
        host = redirect.host.encode()
    elif redirect.scheme and host.rpartition(b":")[2] in (b"80", b"443"):
        host = host.rpartition(b":")[0]
    if redirect.port:
        bare, colon, old = host.rpartition(b":")
        host = (bare if colon and old.isdigit() else host) + b":%d" % redirect.port
    path, mark, query = target.partition(b"?")
    if redirect.path:
        path = redirect.path.encode()
    elif redirect.prefix_rewrite:
        path = _replace_prefix(path, match, redirect.prefix_rewrite.encode())
    tail = b"" if redirect.strip_query or b"?" in path else mark + query
    return scheme + b"://" + host + path + tail


def mutate_lines(lines: list[bytes], mutations: tuple[HeaderMutation, ...]) -> list[bytes]:
    """Apply header changes in order to lines without CRLF; the lines given are not changed."""
    for mutation in mutations:
        gone = {name.lower().encode() for name in mutation.remove}
        gone |= {value.name.lower().encode() for value in mutation.add if not value.append}
        if gone:
            lines = [line for line in lines if line.partition(b":")[0].lower() not in gone]
        lines = lines + [f"{value.name}: {value.value}".encode() for value in mutation.add]
    return lines
