"""What a route asks of a request, as values. Meanings are Envoy's (config.route.v3.RouteMatch)."""

import enum
from dataclasses import dataclass


class MatchKind(enum.Enum):
    """How a text is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"
    """The whole text must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StringMatch:
    """A condition on a text."""

    kind: MatchKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeMatch:
    """A condition on a text that is a whole decimal number (a sign may come first): start <= number < end."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMatch:
    """A condition on one request header; `:method`, `:path`, `:authority` and `:scheme` name the request line's parts.

    A header that occurs more than once meets a condition on its value when one of its values does. (So does Envoy 1.40; older
    ones compare the values joined with a comma.)
    """

    name: str
    """Lower case."""
    match: StringMatch | None = None
    range: RangeMatch | None = None
    """Neither: the header must be present (absent when `invert`)."""
    invert: bool = False
    """The condition must not hold. A missing header fails a condition on its value even when inverted (Envoy's rule),
    unless `missing_as_empty`."""
    missing_as_empty: bool = False
    """Compare a missing header as the empty text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMatch:
    """A condition on one query parameter (its first occurrence, not percent-decoded, as in Envoy)."""

    name: str
    match: StringMatch | None = None
    """None: the parameter must be present."""
    is_absent: bool = False
    """The parameter must not be there, whatever `match` says. Source: Envoy present_match false."""


class PathKind(enum.Enum):
    """How the path (without the query) is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENT_PREFIX = "segment_prefix"
    """A prefix that ends at a `/` or at the end: `/a` matches `/a` and `/a/b`, not `/ab`."""
    REGEX = "regex"
    """The whole path must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMatch:
    kind: PathKind = PathKind.PREFIX
    value: str = "/"
    ignore_case: bool = False


ANY_PATH = PathMatch()
CONNECT_PATH = PathMatch(kind=PathKind.EXACT, value="")
"""Only CONNECT has no path. Source: Envoy RouteMatch.connect_matcher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """All conditions must hold."""

    path: PathMatch = ANY_PATH
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    share: float = 1.0
    """Of the requests that meet the conditions, the part that takes the route, by chance; the others go on to the next
    route. 0 to 1. Source: Envoy RouteMatch.runtime_fraction."""


ANY_REQUEST = RouteMatch()
