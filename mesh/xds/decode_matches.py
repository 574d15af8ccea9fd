"""Conditions of routes: envoy.config.route.v3.RouteMatch and what is in it. Pure."""

from typing import Any

from mesh.routing.errors import RouteTableError
from mesh.routing.match import (
    CONNECT_PATH,
    HeaderMatch,
    MatchKind,
    PathKind,
    PathMatch,
    QueryMatch,
    RangeMatch,
    RouteMatch,
    StringMatch,
)
from mesh.routing.regex import compile_regex
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, share, wrapped


def decode_route_match(match: Any, path: str) -> RouteMatch:
    """A route's conditions. Raises DecodeError."""
    only(
        match,
        path,
        "prefix",
        "path",
        "safe_regex",
        "path_separated_prefix",
        "connect_matcher",
        "case_sensitive",
        "headers",
        "query_parameters",
        "runtime_fraction",
    )
    fraction = match.runtime_fraction.default_value
    has_fraction = match.HasField("runtime_fraction")
    return RouteMatch(
        path=_path_match(match, path),
        headers=decode_headers_match(match, path),
        query=tuple(
            _query(one, f"{join(path, 'query_parameters')}[{i}]") for i, one in enumerate(match.query_parameters)
        ),
        share=share(fraction, join(path, "runtime_fraction.default_value")) if has_fraction else 1.0,
    )


def decode_headers_match(message: Any, path: str) -> tuple[HeaderMatch, ...]:
    """The `headers` of a message: conditions that all must hold."""
    return tuple(_header(header, f"{join(path, 'headers')}[{i}]") for i, header in enumerate(message.headers))


def _path_match(match: Any, path: str) -> PathMatch:
    ignore_case = not wrapped(match, "case_sensitive", True)
    match match.WhichOneof("path_specifier"):
        case "prefix":
            return PathMatch(kind=PathKind.PREFIX, value=match.prefix, ignore_case=ignore_case)
        case "path":
            return PathMatch(kind=PathKind.EXACT, value=match.path, ignore_case=ignore_case)
        case "path_separated_prefix":
            return PathMatch(kind=PathKind.SEGMENT_PREFIX, value=match.path_separated_prefix, ignore_case=ignore_case)
        case "safe_regex":
            return PathMatch(kind=PathKind.REGEX, value=regex(match.safe_regex, join(path, "safe_regex")))
        case "connect_matcher":
            return CONNECT_PATH
        case _:
            raise DecodeError(path, "want one of prefix, path, safe_regex, path_separated_prefix, connect_matcher")


def regex(matcher: Any, path: str) -> str:
    """The pattern of a type.matcher.v3.RegexMatcher. Raises DecodeError when it is not a valid one."""
    only(matcher, path, "google_re2", "regex")
    try:
        compile_regex(matcher.regex)
    except RouteTableError as exc:
        raise DecodeError(join(path, "regex"), str(exc)) from exc
    return str(matcher.regex)


_KINDS = {
    "exact": MatchKind.EXACT,
    "prefix": MatchKind.PREFIX,
    "suffix": MatchKind.SUFFIX,
    "contains": MatchKind.CONTAINS,
}


def decode_string_match(matcher: Any, path: str) -> StringMatch:
    """A type.matcher.v3.StringMatcher."""
    only(matcher, path, *_KINDS, "safe_regex", "ignore_case")
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return StringMatch(kind=MatchKind.REGEX, value=regex(matcher.safe_regex, join(path, "safe_regex")))
    if kind is None:
        raise DecodeError(path, "want one of exact, prefix, suffix, contains, safe_regex")
    return StringMatch(kind=_KINDS[kind], value=getattr(matcher, kind), ignore_case=matcher.ignore_case)


def decode_header_match(header: Any, path: str) -> HeaderMatch:
    """A route.v3.HeaderMatcher."""
    return _header(header, path)


_OLD_HEADER_KINDS = {f"{name}_match": kind for name, kind in _KINDS.items()}


def _header(header: Any, path: str) -> HeaderMatch:
    only(
        header,
        path,
        "name",
        *_OLD_HEADER_KINDS,
        "safe_regex_match",
        "range_match",
        "string_match",
        "present_match",
        "invert_match",
        "treat_missing_header_as_empty",
    )
    if not header.name:
        raise DecodeError(join(path, "name"), "is empty; name a header")
    wants_absence = header.WhichOneof("header_match_specifier") == "present_match" and not header.present_match
    limits = header.range_match
    return HeaderMatch(
        name=header.name.lower(),
        range=RangeMatch(start=limits.start, end=limits.end) if header.HasField("range_match") else None,
        match=_header_text(header, path),
        invert=header.invert_match != wants_absence,
        missing_as_empty=header.treat_missing_header_as_empty,
    )


def _header_text(header: Any, path: str) -> StringMatch | None:
    kind = header.WhichOneof("header_match_specifier")
    if kind in (None, "present_match", "range_match"):
        return None
    if kind == "string_match":
        return decode_string_match(header.string_match, join(path, "string_match"))
    if kind == "safe_regex_match":
        return StringMatch(kind=MatchKind.REGEX, value=regex(header.safe_regex_match, join(path, kind)))
    return StringMatch(kind=_OLD_HEADER_KINDS[kind], value=getattr(header, kind))


def _query(query: Any, path: str) -> QueryMatch:
    only(query, path, "name", "string_match", "present_match")
    if query.WhichOneof("query_parameter_match_specifier") == "string_match":
        return QueryMatch(name=query.name, match=decode_string_match(query.string_match, join(path, "string_match")))
    if query.WhichOneof("query_parameter_match_specifier") == "present_match" and not query.present_match:
        return QueryMatch(name=query.name, is_absent=True)
    return QueryMatch(name=query.name)
