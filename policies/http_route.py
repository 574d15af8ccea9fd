"""HTTPRoute with Services as parents -> routes with their precedence."""

from dataclasses import replace

from mesh.api import gateway as api
from mesh.routing.table import DirectResponse, RouteMatch
from policies.checks import Findings
from policies.errors import Problems
from policies.hosts import service_host
from policies.http_route_backends import Backends
from policies.http_route_filters import FilterCompiler, PathChange, RuleFilters
from policies.http_route_match import compile_match, rank_of
from policies.http_route_session import compile_session
from policies.http_route_values import CompiledHttpRoute, ParentService, RouteEntry
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.route_retry import MAX_ATTEMPTS
from policies.values import (
    DEFAULT_RETRY,
    DEFAULT_RETRY_ATTEMPTS,
    EVERYWHERE,
    SAFE_RETRY_ON,
    CompiledRoute,
    Destination,
    Forward,
    Match,
    RedirectTo,
    Retry,
    Visibility,
)

KIND = "HTTPRoute"
_EVERY_REQUEST = (api.RouteMatch(),)
_NO_BACKEND = DirectResponse(status=500)
"""Source: Gateway API, HTTPRouteRule.backendRefs: all of them are invalid, or there is none."""


def compile_http_route(route: api.HttpRoute, registry: Registry) -> CompiledHttpRoute | Problems:
    """The routes, or everything that is wrong with them. Backends that are missing are told in `problems`, not refused."""
    findings = Findings()
    compiler = _Compiler(route, registry, findings)
    parents = compiler.parents()
    entries = compiler.entries()
    if findings.errors:
        # A rule's filters are compiled for each of its matches: the same error may have been found twice.
        return Problems(provenance_of(KIND, route.metadata), tuple(dict.fromkeys(findings.errors)))
    return CompiledHttpRoute(
        key=route.key,
        generation=route.metadata.generation,
        created=route.metadata.creation_timestamp,
        parents=parents,
        entries=entries,
        problems=tuple(dict.fromkeys(compiler.backends.problems)),
        provenance=provenance_of(KIND, route.metadata),
    )


class _Compiler:
    """One pass over one object."""

    def __init__(self, route: api.HttpRoute, registry: Registry, findings: Findings) -> None:
        self._route = route
        self._meta = route.metadata
        self._registry = registry
        self._findings = findings
        self.backends = Backends(route.metadata, registry, findings)
        self._filters = FilterCompiler(self.backends, findings)

    def parents(self) -> tuple[ParentService, ...]:
        """The Services among the parents; others are somebody else's matter."""
        found: list[ParentService] = []
        for index, ref in enumerate(self._route.spec.parent_refs):
            if not ref.is_service:
                continue
            path = f"spec.parentRefs[{index}]"
            if ref.section_name:
                self._findings.unsupported(f"{path}.sectionName", "a Service has ports: use port")
            namespace = ref.namespace or self._meta.namespace
            parent = ParentService(
                ref=ref,
                host=service_host(ref.name, namespace, self._registry.domain),
                port=ref.port,
                visibility=_visibility(namespace, self._meta.namespace),
            )
            if any((earlier.host, earlier.port) == (parent.host, parent.port) for earlier in found):
                self._findings.duplicate(path, "this Service and port is named already: remove one of them")
            found.append(parent)
        return tuple(found)

    def entries(self) -> tuple[RouteEntry, ...]:
        return tuple(
            entry
            for index, rule in enumerate(self._route.spec.rules or (api.RouteRule(),))
            for entry in self._rule(f"spec.rules[{index}]", index, rule)
        )

    def _rule(self, path: str, index: int, rule: api.RouteRule) -> list[RouteEntry]:
        """Every match by itself: what filters do to paths depends on it."""
        matches = [
            compile_match(f"{path}.matches[{number}]", match, self._findings)
            for number, match in enumerate(rule.matches or _EVERY_REQUEST)
        ]
        return [
            RouteEntry(rank=rank_of(match), route=self._entry(path, index, rule, match))
            for match in dict.fromkeys(matches)
        ]

    def _entry(self, path: str, index: int, rule: api.RouteRule, match: RouteMatch) -> CompiledRoute:
        findings = self._findings
        filters = self._filters.compile(f"{path}.filters", rule.filters, match)
        default_name = f"mesh-{self._meta.name}-{index}"
        return CompiledRoute(
            name=rule.name or f"{self._meta.name}.{index}",
            matches=(Match(request=match),),
            action=self._action(path, rule, filters),
            cors=filters.cors,
            session=compile_session(f"{path}.sessionPersistence", rule.session_persistence, default_name, findings),
            request_headers=filters.request_headers,
            response_headers=filters.response_headers,
            provenance=provenance_of(KIND, self._meta, path),
        )

    def _action(self, path: str, rule: api.RouteRule, filters: RuleFilters) -> Forward | RedirectTo | DirectResponse:
        if filters.redirect is not None:
            if rule.backend_refs:
                message = "RequestRedirect answers by itself: remove the backends or the filter"
                self._findings.invalid(f"{path}.backendRefs", message)
            return filters.redirect
        timeout, per_try = self._timeouts(f"{path}.timeouts", rule.timeouts)
        retry = self._retry(f"{path}.retry", rule.retry, per_try)
        branches = [self._branch(f"{path}.backendRefs[{i}]", ref) for i, ref in enumerate(rule.backend_refs)]
        if not any(branch.host and branch.weight for branch in branches):
            return _NO_BACKEND
        return Forward(
            destinations=tuple(branches),
            timeout_s=timeout,
            retry=retry,
            prefix_rewrite=filters.path.prefix or None,
            regex_rewrite=filters.path.regex,
            host_rewrite=filters.hostname or None,
            mirrors=filters.mirrors,
        )

    def _branch(self, path: str, ref: api.BackendRef) -> Destination:
        self._findings.between(f"{path}.weight", ref.weight, 0, 1_000_000)
        filters = self._filters.compile(f"{path}.filters", ref.filters, RouteMatch())
        if filters.mirrors or filters.redirect or filters.cors or filters.path != PathChange():
            message = "of one backend only RequestHeaderModifier, ResponseHeaderModifier and URLRewrite.hostname are supported"
            self._findings.unsupported(f"{path}.filters", message)
        return replace(
            self.backends.branch(path, ref),
            weight=ref.weight,
            request_headers=filters.request_headers,
            response_headers=filters.response_headers,
            host_rewrite=filters.hostname or None,
            provenance=provenance_of(KIND, self._meta, path),
        )

    def _timeouts(self, path: str, timeouts: api.Timeouts) -> tuple[float | None, float | None]:
        """(whole request, each try); None: no limit."""
        findings = self._findings
        request = findings.duration(f"{path}.request", timeouts.request, zero=True) or None
        per_try = findings.duration(f"{path}.backendRequest", timeouts.backend_request, zero=True) or None
        if request is not None and per_try is not None and per_try > request:
            message = f"{timeouts.backend_request} is longer than the whole request may take ({timeouts.request})"
            findings.invalid(f"{path}.backendRequest", message)
        return request, per_try

    def _retry(self, path: str, retry: api.Retry | None, per_try_s: float | None) -> Retry:
        if retry is None:
            return replace(DEFAULT_RETRY, per_try_timeout_s=per_try_s)
        for index, code in enumerate(retry.codes):
            self._findings.between(f"{path}.codes[{index}]", code, 400, 599)
        attempts = DEFAULT_RETRY_ATTEMPTS if retry.attempts is None else retry.attempts
        self._findings.between(f"{path}.attempts", attempts, 0, MAX_ATTEMPTS)
        return Retry(
            attempts=attempts,
            per_try_timeout_s=per_try_s,
            retry_on=SAFE_RETRY_ON,
            statuses=tuple(dict.fromkeys(retry.codes)),
            back_off_s=self._findings.duration(f"{path}.backoff", retry.backoff),
        )


def _visibility(parent_namespace: str, own_namespace: str) -> Visibility:
    return EVERYWHERE if parent_namespace == own_namespace else Visibility(namespaces=frozenset({own_namespace}))
