"""The match of an HTTP route: conditions on the request and on who sends it."""

from collections.abc import Iterable, Mapping

from mesh.api import networking as api
from mesh.routing.table import HeaderMatch, MatchKind, PathKind, PathMatch, QueryMatch, RouteMatch, StringMatch
from policies.checks import Findings
from policies.headers import check_header_name
from policies.values import Match

_KINDS = {"exact": MatchKind.EXACT, "prefix": MatchKind.PREFIX, "regex": MatchKind.REGEX}
_PATH_KINDS = {MatchKind.EXACT: PathKind.EXACT, MatchKind.PREFIX: PathKind.PREFIX, MatchKind.REGEX: PathKind.REGEX}
ANY = Match()


def compile_matches(path: str, requests: Iterable[api.HttpMatchRequest], findings: Findings) -> tuple[Match, ...]:
    """Every alternative of one route; no entry means every request. Empty when all are for other gateways."""
    compiled: list[Match] = []
    seen: dict[Match, str] = {}
    is_empty = True
    for index, request in enumerate(requests):
        is_empty = False
        here = f"{path}[{index}]"
        match = compile_match(here, request, findings)
        if request.gateways and "mesh" not in request.gateways:
            continue
        earlier = seen.setdefault(match.condition, here)
        if earlier != here:
            findings.duplicate(here, f"repeats {earlier}: remove one of them")
        compiled.append(match)
    return (ANY,) if is_empty else tuple(compiled)


def compile_match(path: str, request: api.HttpMatchRequest, findings: Findings) -> Match:
    """One alternative; all its conditions must hold."""
    headers = [
        HeaderMatch(name=pseudo, match=condition)
        for field, pseudo, value in (
            ("scheme", ":scheme", request.scheme),
            ("method", ":method", request.method),
            ("authority", ":authority", request.authority),
        )
        if value is not None and (condition := compile_string(f"{path}.{field}", value, findings)) is not None
    ]
    headers += _headers(f"{path}.headers", request.headers, findings, invert=False)
    headers += _headers(f"{path}.withoutHeaders", request.without_headers, findings, invert=True)
    if request.port:
        findings.port(f"{path}.port", request.port)
    return Match(
        request=RouteMatch(
            path=_path(f"{path}.uri", request, findings),
            headers=tuple(headers),
            query=_query(f"{path}.queryParams", request.query_params, findings),
        ),
        port=request.port,
        source_labels=tuple(sorted(request.source_labels.items())),
        source_namespace=request.source_namespace,
        name=request.name,
        stat_prefix=request.stat_prefix,
    )


def _path(path: str, request: api.HttpMatchRequest, findings: Findings) -> PathMatch:
    if request.uri is None:
        return PathMatch()
    condition = compile_string(path, request.uri, findings)
    if condition is None:
        findings.required(path, "give one of exact, prefix or regex")
        return PathMatch()
    if condition.kind is not MatchKind.REGEX and not condition.value.startswith("/"):
        findings.invalid(path, f'"{condition.value}" never matches: paths start with "/"')
    if condition.kind is MatchKind.REGEX and request.ignore_uri_case:
        findings.invalid(path, "ignoreUriCase does not apply to a regex: write (?i) in it instead")
    return PathMatch(kind=_PATH_KINDS[condition.kind], value=condition.value, ignore_case=request.ignore_uri_case)


def _headers(
    path: str, conditions: Mapping[str, api.StringMatch], findings: Findings, *, invert: bool
) -> list[HeaderMatch]:
    compiled: list[HeaderMatch] = []
    for name, value in conditions.items():
        here = f'{path}["{name}"]'
        check_header_name(here, name, findings)
        condition = compile_string(here, value, findings)
        has_value = condition is not None
        compiled.append(
            HeaderMatch(name=name.lower(), match=condition, invert=invert, missing_as_empty=invert and has_value)
        )
    return compiled


def _query(path: str, conditions: Mapping[str, api.StringMatch], findings: Findings) -> tuple[QueryMatch, ...]:
    return tuple(
        QueryMatch(name=name, match=compile_string(f'{path}["{name}"]', value, findings))
        for name, value in conditions.items()
    )


def compile_string(path: str, value: api.StringMatch, findings: Findings) -> StringMatch | None:
    """None asks only that the value is there."""
    given = [(kind, text) for kind in _KINDS if (text := getattr(value, kind)) is not None]
    if len(given) > 1:
        findings.invalid(path, f"give one of {' and '.join(kind for kind, _ in given)}, not both")
    if not given:
        return None
    kind, text = given[0]
    if kind == "regex":
        findings.regex(f"{path}.regex", text)
    return StringMatch(kind=_KINDS[kind], value=text)
