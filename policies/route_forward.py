"""Routes that send requests on: destinations, their shares, mirrors and rewrites."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh.api import networking as api
from mesh.api.meta import ObjectMeta
from mesh.routing.table import RegexRewrite
from policies.checks import Findings
from policies.headers import compile_header_operations
from policies.hosts import resolve_host
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.route_retry import compile_retry
from policies.values import Destination, Forward, Mirror

_GROUP = re.compile(r"\\(.?)")
PREFIX_OR_EXACT = "replaces the matched prefix, and a regex has none: match by prefix or exact, or use uriRegexRewrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCompiler:
    """Compiles the forwarding routes of one VirtualService."""

    kind: str
    meta: ObjectMeta
    registry: Registry
    findings: Findings
    retriable_headers: tuple[str, ...] = ()

    def compile(self, path: str, route: api.HttpRoute) -> Forward:
        """The whole action."""
        self._check_weights(f"{path}.route", route.route)
        destinations = tuple(
            self._branch(f"{path}.route[{i}]", branch, alone=len(route.route) == 1)
            for i, branch in enumerate(route.route)
        )
        rewrite = route.rewrite or api.HttpRewrite()
        self._check_rewrite(path, route, rewrite)
        retry_path = f"{path}.retries"
        return Forward(
            destinations=destinations or (Destination(host=""),),
            timeout_s=self.findings.duration(f"{path}.timeout", route.timeout, zero=True) or None,
            retry=compile_retry(retry_path, route.retries, self.findings, retriable_headers=self.retriable_headers),
            prefix_rewrite=rewrite.uri or None,
            regex_rewrite=self._regex_rewrite(f"{path}.rewrite", rewrite),
            host_rewrite=rewrite.authority or None,
            mirrors=self._mirrors(path, route),
        )

    def _check_rewrite(self, path: str, route: api.HttpRoute, rewrite: api.HttpRewrite) -> None:
        findings = self.findings
        if rewrite.uri and not rewrite.uri.startswith("/"):
            findings.invalid(f"{path}.rewrite.uri", f'"{rewrite.uri}": a path starts with "/"')
        if rewrite.uri and any(m.uri is not None and m.uri.regex is not None for m in route.match):
            findings.invalid(f"{path}.rewrite.uri", PREFIX_OR_EXACT)
        if any(c in rewrite.authority for c in " /\r\n%"):
            findings.invalid(f"{path}.rewrite.authority", f'"{rewrite.authority}" is no host')

    def _regex_rewrite(self, path: str, rewrite: api.HttpRewrite) -> RegexRewrite | None:
        wanted = rewrite.uri_regex_rewrite
        if wanted is None:
            return None
        findings, path = self.findings, f"{path}.uriRegexRewrite"
        if rewrite.uri:
            findings.invalid(path, "uri is given already: remove one of them")
        if not wanted.match:
            findings.required(f"{path}.match", "say what to replace")
            return None
        before = len(findings.errors)
        findings.regex(f"{path}.match", wanted.match)
        if len(findings.errors) == before:
            self._check_substitution(f"{path}.rewrite", wanted)
        return RegexRewrite(pattern=wanted.match, substitution=wanted.rewrite)

    def _check_substitution(self, path: str, wanted: api.RegexRewrite) -> None:
        groups = re.compile(wanted.match).groups
        for found in _GROUP.findall(wanted.rewrite):
            if found.isdecimal() and int(found) > groups:
                self.findings.invalid(path, f"\\{found}: the regex has {groups} groups")
            elif not found.isdecimal() and found != "\\":
                self.findings.invalid(path, r"a backslash stands before a group's number or another backslash")

    def _check_weights(self, path: str, branches: Sequence[api.HttpRouteDestination]) -> None:
        weights = [branch.weight for branch in branches]
        for index, weight in enumerate(weights):
            self.findings.between(f"{path}[{index}].weight", weight, 0, 100)
        if len(weights) > 1 and sum(weights) != 100:
            self.findings.invalid(path, f"weights sum to {sum(weights)}, want 100")
        elif len(weights) == 1 and weights[0] not in (0, 100):
            message = f"{weights[0]} for the only destination: leave it out, or give 100"
            self.findings.invalid(f"{path}[0].weight", message)

    def _mirrors(self, path: str, route: api.HttpRoute) -> tuple[Mirror, ...]:
        findings = self.findings
        if route.mirror is None:
            if route.mirror_percentage is not None:
                findings.invalid(f"{path}.mirrorPercentage", "belongs to mirror, which is not given")
            return tuple(
                self._mirror(f"{path}.mirrors[{i}]", f"{path}.mirrors[{i}].percentage", m.destination, m.percentage)
                for i, m in enumerate(route.mirrors)
            )
        if route.mirrors:
            findings.invalid(f"{path}.mirrors", "mirror is given already: put it into mirrors")
        return (self._mirror(path, f"{path}.mirrorPercentage", route.mirror, route.mirror_percentage, "mirror"),)

    def _mirror(
        self, path: str, share: str, target: api.Destination, percentage: api.Percent | None, field: str = "destination"
    ) -> Mirror:
        percent = 100.0 if percentage is None else self.findings.percent(f"{share}.value", percentage.value)
        return Mirror(destination=self.destination(f"{path}.{field}", target), percent=percent)

    def _branch(self, path: str, branch: api.HttpRouteDestination, *, alone: bool) -> Destination:
        headers = branch.headers
        return replace(
            self.destination(f"{path}.destination", branch.destination),
            weight=100 if alone else branch.weight,
            request_headers=compile_header_operations(f"{path}.headers.request", headers.request, self.findings),
            response_headers=compile_header_operations(f"{path}.headers.response", headers.response, self.findings),
            provenance=provenance_of(self.kind, self.meta, path),
        )

    def destination(self, path: str, target: api.Destination) -> Destination:
        """A Service, its port and subset, checked against the registry."""
        registry, findings = self.registry, self.findings
        host = resolve_host(target.host, self.meta.namespace, registry.ports, registry.domain)
        port = target.port.number if target.port else 0
        if not host:
            findings.required(f"{path}.host", "name the service to send requests to")
        elif problem := registry.host_problem(host):
            findings.invalid(f"{path}.host", problem)
        elif problem := registry.subset_problem(host, target.subset):
            findings.invalid(f"{path}.subset", problem)
        elif problem := registry.port_problem(host, port):
            findings.invalid(f"{path}.port.number", problem)
        if target.port is not None:
            findings.port(f"{path}.port.number", port)
        return Destination(host=host, subset=target.subset, port=port)
