"""The filters of an HTTPRoute's rules and backends."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.api import gateway as api
from mesh.api.networking import HeaderOperations
from mesh.routing.table import HeaderMutation, MatchKind, PathKind, RegexRewrite, RouteMatch, StringMatch
from policies.checks import Findings
from policies.headers import compile_header_operations
from policies.http_route_backends import Backends
from policies.route_answers import REDIRECTS
from policies.route_cors import check_tokens
from policies.values import NO_MUTATION, Cors, Mirror, PortOf, RedirectTo

_FIELDS: Mapping[str, str] = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "CORS": "cors",
    "ExtensionRef": "extension_ref",
}
_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?:https?|[a-z][a-z0-9+.-]*)://(\*|(?:\*\.)?[A-Za-z0-9.-]+)(?::(?:\*|\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """A new path; at most one is set."""

    full: str = ""
    prefix: str = ""
    """Replaces the matched prefix."""
    regex: RegexRewrite | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFilters:
    """What the filters of one rule or backend say."""

    request_headers: HeaderMutation = NO_MUTATION
    response_headers: HeaderMutation = NO_MUTATION
    mirrors: tuple[Mirror, ...] = ()
    redirect: RedirectTo | None = None
    hostname: str = ""
    path: PathChange = PathChange()
    cors: Cors | None = None


@dataclass(frozen=True, slots=True)
class FilterCompiler:
    """Compiles the filters of one HTTPRoute."""

    backends: Backends
    findings: Findings

    def compile(self, path: str, filters: Sequence[api.RouteFilter], match: RouteMatch) -> RuleFilters:
        """`match`: the one that rewritten prefixes belong to."""
        by_type = self._by_type(path, filters)
        request, response = by_type.get("RequestHeaderModifier"), by_type.get("ResponseHeaderModifier")
        redirect, rewrite, cors = by_type.get("RequestRedirect"), by_type.get("URLRewrite"), by_type.get("CORS")
        if redirect and rewrite:
            self.findings.invalid(path, "RequestRedirect and URLRewrite exclude each other: remove one of them")
        result = RuleFilters(
            request_headers=self._headers(*request, "requestHeaderModifier") if request else NO_MUTATION,
            response_headers=self._headers(*response, "responseHeaderModifier") if response else NO_MUTATION,
            mirrors=self._mirrors(path, filters),
            redirect=self._redirect(*redirect, match) if redirect else None,
            cors=self._cors(*cors) if cors else None,
        )
        return self._with_rewrite(result, *rewrite, match) if rewrite else result

    def _by_type(self, path: str, filters: Sequence[api.RouteFilter]) -> dict[str, tuple[str, api.RouteFilter]]:
        found: dict[str, tuple[str, api.RouteFilter]] = {}
        for index, item in enumerate(filters):
            here = f"{path}[{index}]"
            if item.type not in _FIELDS or item.type == "ExtensionRef":
                self.findings.unsupported(f"{here}.type", f'"{item.type}" is not supported here')
                continue
            given = [name for name, field in _FIELDS.items() if getattr(item, field) is not None]
            if given != [item.type]:
                self.findings.invalid(here, f"type is {item.type}: give exactly its field, not {given or 'nothing'}")
                continue
            if item.type in found and item.type != "RequestMirror":
                self.findings.duplicate(f"{here}.type", f"{item.type} is given twice: merge the two")
            found[item.type] = here, item
        return found

    def _headers(self, path: str, item: api.RouteFilter, field: str) -> HeaderMutation:
        modifier = item.request_header_modifier if field.startswith("request") else item.response_header_modifier
        assert modifier is not None  # checked by _by_type
        operations = HeaderOperations(
            set={header.name: header.value for header in modifier.set},
            add={header.name: header.value for header in modifier.add},
            remove=modifier.remove,
        )
        return compile_header_operations(f"{path}.{field}", operations, self.findings)

    def _mirrors(self, path: str, filters: Sequence[api.RouteFilter]) -> tuple[Mirror, ...]:
        mirrors: list[Mirror] = []
        for index, item in enumerate(filters):
            if item.request_mirror is None or item.type != "RequestMirror":
                continue
            here = f"{path}[{index}].requestMirror"
            percent = self._mirror_percent(here, item.request_mirror)
            destination = self.backends.resolve(f"{here}.backendRef", item.request_mirror.backend_ref)
            if destination is not None:
                mirrors.append(Mirror(destination=destination, percent=percent))
        return tuple(mirrors)

    def _mirror_percent(self, path: str, mirror: api.RequestMirror) -> float:
        fraction = mirror.fraction
        if fraction is None:
            return self.findings.percent(f"{path}.percent", 100.0 if mirror.percent is None else mirror.percent)
        if mirror.percent is not None:
            self.findings.invalid(path, "has percent and fraction: give only one of them")
        if fraction.denominator < 1 or not 0 <= fraction.numerator <= fraction.denominator:
            share = f"{fraction.numerator}/{fraction.denominator}"
            self.findings.invalid(f"{path}.fraction", f"{share} is not between 0 and 1")
            return 0.0
        return 100.0 * fraction.numerator / fraction.denominator

    def _redirect(self, path: str, item: api.RouteFilter, match: RouteMatch) -> RedirectTo:
        redirect, path = item.request_redirect, f"{path}.requestRedirect"
        assert redirect is not None  # checked by _by_type
        if redirect.status_code not in REDIRECTS:
            message = f"{redirect.status_code} is no redirect: use 301, 302, 303, 307 or 308"
            self.findings.unsupported(f"{path}.statusCode", message)
        if redirect.scheme not in ("", "http", "https"):
            self.findings.unsupported(f"{path}.scheme", f'"{redirect.scheme}": use http or https')
        if redirect.port:
            self.findings.port(f"{path}.port", redirect.port)
        self._check_hostname(f"{path}.hostname", redirect.hostname)
        change = self._path_change(f"{path}.path", redirect.path, match)
        if not (redirect.scheme or redirect.hostname or redirect.port or change != PathChange()):
            self.findings.required(
                path, "changes nothing, which makes clients loop: give scheme, hostname, port or path"
            )
        is_well_known = redirect.port == _WELL_KNOWN_PORTS.get(redirect.scheme)
        port = 0 if is_well_known else redirect.port
        implied = PortOf.SCHEME if redirect.scheme else PortOf.REQUEST
        return RedirectTo(
            scheme=redirect.scheme,
            host=redirect.hostname,
            port=port,
            port_of=PortOf.LOCATION if port else implied,
            path=change.full,
            prefix=change.prefix,
            regex=change.regex,
            status=redirect.status_code,
        )

    def _with_rewrite(self, result: RuleFilters, path: str, item: api.RouteFilter, match: RouteMatch) -> RuleFilters:
        rewrite, path = item.url_rewrite, f"{path}.urlRewrite"
        assert rewrite is not None  # checked by _by_type
        self._check_hostname(f"{path}.hostname", rewrite.hostname)
        change = self._path_change(f"{path}.path", rewrite.path, match)
        if change.full:
            change = PathChange(regex=RegexRewrite(pattern="^/.*$", substitution=_literal(change.full)))
        return RuleFilters(
            request_headers=result.request_headers,
            response_headers=result.response_headers,
            mirrors=result.mirrors,
            redirect=result.redirect,
            hostname=rewrite.hostname,
            path=change,
            cors=result.cors,
        )

    def _check_hostname(self, path: str, hostname: str) -> None:
        if hostname and not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", hostname):
            self.findings.invalid(path, f'"{hostname}" is no host name: write it in lower case, without a port')

    def _path_change(self, path: str, modifier: api.PathModifier | None, match: RouteMatch) -> PathChange:
        if modifier is None:
            return PathChange()
        full, prefix = modifier.replace_full_path, modifier.replace_prefix_match
        wanted = {"ReplaceFullPath": (full, prefix), "ReplacePrefixMatch": (prefix, full)}.get(modifier.type)
        if wanted is None:
            self.findings.unsupported(f"{path}.type", "use ReplaceFullPath or ReplacePrefixMatch")
            return PathChange()
        value, other = wanted
        if value is None or other is not None:
            self.findings.invalid(path, f"type is {modifier.type}: give exactly its field")
            return PathChange()
        if (value or modifier.type == "ReplaceFullPath") and not value.startswith("/"):
            self.findings.invalid(path, f'"{value}": a path starts with "/"')
        if any(c in value for c in "?# \r\n"):
            self.findings.invalid(path, f'"{value}" is more than a path')
        if modifier.type == "ReplaceFullPath":
            return PathChange(full=value)
        return self._prefix_change(path, value, match)

    def _prefix_change(self, path: str, value: str, match: RouteMatch) -> PathChange:
        if match.path.kind not in (PathKind.SEGMENT_PREFIX, PathKind.PREFIX):
            self.findings.invalid(path, "replaces the matched prefix: match by PathPrefix only")
            return PathChange()
        replacement = value.rstrip("/")
        if replacement:
            return PathChange(prefix=replacement)
        if match.path.kind is PathKind.PREFIX:
            return PathChange()  # "/" becomes "/"
        # Envoy would make "//b" of "/a/b"; so the slashes after the prefix are taken along.
        pattern = f"^{re.escape(match.path.value)}/*"
        return PathChange(regex=RegexRewrite(pattern=pattern, substitution="/"))

    def _cors(self, path: str, item: api.RouteFilter) -> Cors:
        cors, path = item.cors, f"{path}.cors"
        assert cors is not None  # checked by _by_type
        lists = {
            "allowMethods": cors.allow_methods,
            "allowHeaders": cors.allow_headers,
            "exposeHeaders": cors.expose_headers,
        }
        for field, names in lists.items():
            check_tokens(f"{path}.{field}", names, self.findings)
            if "*" in names and cors.allow_credentials:
                self.findings.invalid(f"{path}.{field}", "browsers do not take * with credentials: name them")
        if not cors.allow_origins:
            self.findings.required(f"{path}.allowOrigins", 'without an origin nothing is allowed: give one, or "*"')
        origins = [self._origin(f"{path}.allowOrigins[{i}]", o) for i, o in enumerate(cors.allow_origins)]
        return Cors(
            origins=tuple(origins),
            methods=cors.allow_methods,
            headers=cors.allow_headers,
            exposes=cors.expose_headers,
            max_age_s=cors.max_age,
            allows_credentials=cors.allow_credentials or None,
            forwards_unmatched=False,
        )

    def _origin(self, path: str, origin: str) -> StringMatch:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            self.findings.invalid(path, f'"{origin}" is no origin: write scheme://host[:port], or *')
        if origin == "*" or "*" not in origin:
            return StringMatch(kind=MatchKind.EXACT, value=origin)
        scheme, _, rest = origin.partition("://")
        host, colon, port = rest.partition(":")
        pattern = re.escape(host).replace(r"\*", r"[A-Za-z0-9.-]+")
        numbers = r":\d+" if port == "*" else re.escape(colon + port)
        return StringMatch(kind=MatchKind.REGEX, value=f"{re.escape(scheme)}://{pattern}{numbers}")


def _literal(text: str) -> str:
    """As a substitution in which nothing is a group."""
    return text.replace("\\", "\\\\")
