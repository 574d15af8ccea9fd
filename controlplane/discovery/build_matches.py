"""Compiled matches -> envoy.config.route.v3.RouteMatch. Pure."""

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from mesh.routing.table import HeaderMatch, MatchKind, PathKind, PathMatch, QueryMatch, RouteMatch, StringMatch


def route_match(match: RouteMatch) -> Any:
    """The conditions on a request."""
    built = route_components_pb2.RouteMatch(
        headers=[_header(condition) for condition in match.headers],
        query_parameters=[_query(condition) for condition in match.query],
    )
    _set_path(built, match.path)
    return built


def _set_path(built: Any, path: PathMatch) -> None:
    match path.kind:
        case PathKind.EXACT:
            built.path = path.value
        case PathKind.PREFIX:
            built.prefix = path.value
        case PathKind.SEGMENT_PREFIX:
            built.path_separated_prefix = path.value
        case PathKind.REGEX:
            built.safe_regex.CopyFrom(regex_pb2.RegexMatcher(regex=path.value))
    if path.ignore_case:
        built.case_sensitive.value = False


def _header(condition: HeaderMatch) -> Any:
    built = route_components_pb2.HeaderMatcher(name=condition.name, invert_match=condition.invert)
    if condition.match is None:
        built.present_match = True
    else:
        built.string_match.CopyFrom(string_matcher(condition.match))
        built.treat_missing_header_as_empty = condition.missing_as_empty
    return built


def _query(condition: QueryMatch) -> Any:
    built = route_components_pb2.QueryParameterMatcher(name=condition.name)
    if condition.match is None:
        built.present_match = True
    else:
        built.string_match.CopyFrom(string_matcher(condition.match))
    return built


def string_matcher(match: StringMatch) -> Any:
    """type.matcher.v3.StringMatcher."""
    built = string_pb2.StringMatcher(ignore_case=match.ignore_case)
    match match.kind:
        case MatchKind.EXACT:
            built.exact = match.value
        case MatchKind.PREFIX:
            built.prefix = match.value
        case MatchKind.SUFFIX:
            built.suffix = match.value
        case MatchKind.CONTAINS:
            built.contains = match.value
        case MatchKind.REGEX:
            built.safe_regex.regex = match.value
    return built
