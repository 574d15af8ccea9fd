"""The matches of an HTTPRoute and their precedence."""

import re
from collections.abc import Sequence

from mesh.api import gateway as api
from mesh.routing.table import HeaderMatch, MatchKind, PathKind, PathMatch, QueryMatch, RouteMatch, StringMatch
from policies.checks import Findings
from policies.headers import check_header_name
from policies.http_route_values import Rank

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_BAD_PARTS = ("//", "/./", "/../", "%2f", "%2F", "#")
_PATH_RANK = {PathKind.EXACT: 0, PathKind.SEGMENT_PREFIX: 1, PathKind.PREFIX: 1, PathKind.REGEX: 2}


def compile_match(path: str, match: api.RouteMatch, findings: Findings) -> RouteMatch:
    """All its conditions must hold."""
    headers: list[HeaderMatch] = []
    if match.method:
        if match.method not in METHODS:
            findings.unsupported(f"{path}.method", f'"{match.method}": use {", ".join(sorted(METHODS))}')
        headers.append(HeaderMatch(name=":method", match=StringMatch(kind=MatchKind.EXACT, value=match.method)))
    for index, header in enumerate(_first_of_each(match.headers)):
        check_header_name(f"{path}.headers[{index}].name", header.name, findings)
        condition = _value(f"{path}.headers[{index}]", header, findings)
        headers.append(HeaderMatch(name=header.name.lower(), match=condition))
    query = tuple(
        QueryMatch(name=parameter.name, match=_value(f"{path}.queryParams[{index}]", parameter, findings))
        for index, parameter in enumerate(match.query_params)
    )
    return RouteMatch(path=_path(f"{path}.path", match.path, findings), headers=tuple(headers), query=query)


def _first_of_each(headers: Sequence[api.ValueMatch]) -> list[api.ValueMatch]:
    """Names that are equal but for their case count once. Source: Gateway API, HTTPHeaderMatch.name."""
    found: dict[str, api.ValueMatch] = {}
    for header in headers:
        found.setdefault(header.name.lower(), header)
    return list(found.values())


def _value(path: str, match: api.ValueMatch, findings: Findings) -> StringMatch:
    if match.type == "RegularExpression":
        findings.regex(f"{path}.value", match.value)
        return StringMatch(kind=MatchKind.REGEX, value=match.value)
    if match.type != "Exact":
        findings.unsupported(f"{path}.type", f'"{match.type}": use Exact or RegularExpression')
    return StringMatch(kind=MatchKind.EXACT, value=match.value)


def _path(path: str, match: api.PathMatch, findings: Findings) -> PathMatch:
    if match.type == "RegularExpression":
        findings.regex(f"{path}.value", match.value)
        return PathMatch(kind=PathKind.REGEX, value=match.value)
    if match.type not in ("Exact", "PathPrefix"):
        findings.unsupported(f"{path}.type", f'"{match.type}": use Exact, PathPrefix or RegularExpression')
    check_path(f"{path}.value", match.value, findings)
    if match.type == "Exact":
        return PathMatch(kind=PathKind.EXACT, value=match.value)
    prefix = match.value.rstrip("/")  # a trailing slash is of no account
    return PathMatch(kind=PathKind.SEGMENT_PREFIX, value=prefix) if prefix else PathMatch()


def check_path(path: str, value: str, findings: Findings) -> None:
    """What an exact path or a prefix may be. Source: Gateway API, HTTPPathMatch."""
    if not value.startswith("/"):
        findings.invalid(path, f'"{value}": a path starts with "/"')
    elif bad := [part for part in _BAD_PARTS if part in value] or [e for e in ("/.", "/..") if value.endswith(e)]:
        findings.invalid(path, f'"{value}" contains "{bad[0]}", which no request has after normalisation')
    elif not _PATH.fullmatch(value):
        findings.invalid(path, f'"{value}" has characters that a path does not have: percent-encode them')


def rank_of(match: RouteMatch) -> Rank:
    """Its place among the matches of one Service."""
    has_method = any(header.name == ":method" for header in match.headers)
    return (
        _PATH_RANK[match.path.kind],
        -len(match.path.value),
        0 if has_method else 1,
        -(len(match.headers) - has_method),
        -len(match.query),
    )
