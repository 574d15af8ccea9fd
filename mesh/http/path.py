"""A request target's path made one of a kind before anything is matched against it. Pure.

Source: Envoy HttpConnectionManager `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`; RFC 3986 s5.2.4 and s6.2.2.
"""

import enum
import re
from dataclasses import dataclass


class EscapedSlashes(enum.Enum):
    """What to do with a path that holds `%2F` or `%5C`. Servers disagree on whether these separate segments."""

    KEEP_UNCHANGED = enum.auto()
    REJECT = enum.auto()
    """400."""
    UNESCAPE_AND_REDIRECT = enum.auto()
    """307 to the path with plain slashes."""
    UNESCAPE_AND_FORWARD = enum.auto()


class PathVerdict(enum.Enum):
    FORWARD = enum.auto()
    REDIRECT = enum.auto()
    REJECT = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class PathOptions:
    """Which normalisations a listener does. The default changes nothing."""

    normalize: bool = False
    """Resolve dot segments (also escaped ones), take `\\` for `/`, undo needless escapes."""
    merge_slashes: bool = False
    """Make one slash of several. After `normalize`."""
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP_UNCHANGED
    """Before `normalize`."""

    def __bool__(self) -> bool:
        return self.normalize or self.merge_slashes or self.escaped_slashes is not EscapedSlashes.KEEP_UNCHANGED


_ESCAPED_SLASH = re.compile(rb"%(?:2[Ff]|5[Cc])")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(rb"%(?=%|[0-9A-Fa-f]%)")
"""A percent sign that would begin an escape once the one behind it is undone."""
_SLASHES = re.compile(rb"//+")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NEEDS_ESCAPE = re.compile(rb'["<>^`{|}]')


def normalise_target(target: bytes, options: PathOptions) -> tuple[PathVerdict, bytes]:
    """What becomes of `target`, in origin form or `*`, and the target from then on. The query stays as it is."""
    path, mark, query = target.partition(b"?")
    if path[:1] != b"/":
        return PathVerdict.FORWARD, target
    verdict = PathVerdict.FORWARD
    if options.escaped_slashes is not EscapedSlashes.KEEP_UNCHANGED and _ESCAPED_SLASH.search(path):
        if options.escaped_slashes is EscapedSlashes.REJECT:
            return PathVerdict.REJECT, target
        if options.escaped_slashes is EscapedSlashes.UNESCAPE_AND_REDIRECT:
            verdict = PathVerdict.REDIRECT
        path = _ESCAPED_SLASH.sub(lambda found: b"/" if found[0][1:2] == b"2" else b"\\", path)
    if options.normalize:
        normal = normalise_path(path)
        if normal is None:
            return PathVerdict.REJECT, target
        path = normal
    if options.merge_slashes:
        path = _SLASHES.sub(b"/", path)
    return verdict, path + mark + query


def normalise_path(path: bytes) -> bytes | None:
    """A path, starting with `/`, without dot segments and needless escapes. None: it holds an escaped NUL.

    Applying it twice changes nothing more. Letters keep their case, also those of escapes (as in Envoy). A segment `..;x` is a dot
    segment too: some servers drop what follows the `;` (Envoy and we undo that way into another directory).
    DEVIATION: Envoy does not look for it behind escaped dots (`%2e%2e;x`); here they are the same.
    """
    if b"%00" in path:
        return None
    path = _NEEDS_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], path.replace(b"\\", b"/"))
    if b"%" in path:
        path = _ESCAPE.sub(_unescape, _STRAY_PERCENT.sub(b"%25", path))
    return _without_dot_segments(path) if b"/." in path else path


def _unescape(found: re.Match[bytes]) -> bytes:
    byte = int(found[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED else found[0]


def _without_dot_segments(path: bytes) -> bytes:
    kept: list[bytes] = []
    dots = b""
    for segment in path.split(b"/")[1:]:
        dots = segment.partition(b";")[0]
        if dots == b"..":
            if kept:
                kept.pop()
        elif dots != b".":
            kept.append(segment)
    if dots in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
