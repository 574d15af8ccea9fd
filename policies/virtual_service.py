"""VirtualService -> the routes of its hosts."""

from collections.abc import Sequence

from mesh.api import networking as api
from mesh.routing.table import DirectResponse, Redirect
from policies.checks import Findings
from policies.errors import Problems
from policies.headers import compile_header_operations
from policies.hosts import resolve_host
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.route_match import compile_matches
from policies.route_retry import compile_retry
from policies.values import CompiledRoute, CompiledVirtualService, Destination, Forward, Match
from policies.visibility import compile_visibility

KIND = "VirtualService"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def compile_virtual_service(service: api.VirtualService, registry: Registry) -> CompiledVirtualService | Problems:
    """The routes, or everything that is wrong with them."""
    findings = Findings()
    compiler = _Compiler(service, registry, findings)
    hosts = compiler.hosts()
    routes = compiler.routes()
    visibility = compile_visibility(service.spec.export_to, service.metadata.namespace, findings)
    if findings.errors:
        return Problems(provenance_of(KIND, service.metadata), tuple(findings.errors))
    return CompiledVirtualService(
        key=service.key,
        generation=service.metadata.generation,
        created=service.metadata.creation_timestamp,
        hosts=hosts,
        routes=routes,
        visibility=visibility,
        is_for_sidecars=not service.spec.gateways or "mesh" in service.spec.gateways,
        provenance=provenance_of(KIND, service.metadata),
    )


class _Compiler:
    """One pass over one object."""

    def __init__(self, service: api.VirtualService, registry: Registry, findings: Findings) -> None:
        self._service = service
        self._registry = registry
        self._findings = findings

    def _resolve(self, host: str) -> str:
        registry = self._registry
        return resolve_host(host, self._service.metadata.namespace, registry.ports, registry.domain)

    def hosts(self) -> tuple[str, ...]:
        hosts: list[str] = []
        for index, host in enumerate(self._service.spec.hosts):
            path = f"spec.hosts[{index}]"
            resolved = self._resolve(host)
            if not resolved or any(c in resolved for c in " /:") or resolved.rfind("*") > 0:
                self._findings.invalid(path, f'"{host}" is no host: write a name, or a wildcard such as *.example.com')
            elif resolved in hosts:
                self._findings.duplicate(path, f'"{host}" is named twice: remove one of them')
            hosts.append(resolved)
        if not hosts:
            self._findings.required("spec.hosts", "name at least one host whose requests are routed")
        return tuple(hosts)

    def routes(self) -> tuple[CompiledRoute, ...]:
        if not self._service.spec.http:
            self._findings.required("spec.http", "give at least one route")
        compiled: list[CompiledRoute] = []
        everything = ""
        for index, route in enumerate(self._service.spec.http):
            path = f"spec.http[{index}]"
            if everything:
                self._findings.invalid(path, f"is never reached: {everything} takes every request; put this one first")
            compiled.append(self._route(path, route))
            self._check_duplicates(path, compiled)
            if any(match == Match() for match in compiled[-1].matches):
                everything = path
        return tuple(compiled)

    def _check_duplicates(self, path: str, routes: Sequence[CompiledRoute]) -> None:
        for position, match in enumerate(routes[-1].matches):
            for earlier, route in enumerate(routes[:-1]):
                if match in route.matches and match != Match():
                    here, there = f"{path}.match[{position}]", f"spec.http[{earlier}]"
                    self._findings.duplicate(here, f"is never reached: {there} has the same match; remove one of them")

    def _route(self, path: str, route: api.HttpRoute) -> CompiledRoute:
        findings = self._findings
        return CompiledRoute(
            name=route.name,
            matches=compile_matches(f"{path}.match", route.match, findings),
            action=self._action(path, route),
            request_headers=compile_header_operations(f"{path}.headers.request", route.headers.request, findings),
            response_headers=compile_header_operations(f"{path}.headers.response", route.headers.response, findings),
            provenance=provenance_of(KIND, self._service.metadata, path),
        )

    def _action(self, path: str, route: api.HttpRoute) -> Forward | Redirect | DirectResponse:
        actions = {"route": route.route, "redirect": route.redirect, "directResponse": route.direct_response}
        given = [name for name, value in actions.items() if value]
        if len(given) > 1:
            self._findings.invalid(path, f"has {' and '.join(given)}: give only one of them")
        if route.redirect is not None:
            return self._redirect(f"{path}.redirect", route.redirect)
        if route.direct_response is not None:
            return self._direct_response(f"{path}.directResponse", route.direct_response)
        if not given:
            self._findings.required(f"{path}.route", "give at least one destination")
        return self._forward(path, route)

    def _redirect(self, path: str, redirect: api.HttpRedirect) -> Redirect:
        status = redirect.redirect_code or 301
        if status not in _REDIRECTS:
            self._findings.unsupported(
                f"{path}.redirectCode", f"{status} is no redirect: use 301, 302, 303, 307 or 308"
            )
        if redirect.port:
            self._findings.port(f"{path}.port", redirect.port)
        if not (redirect.uri or redirect.authority or redirect.port or redirect.scheme):
            self._findings.required(
                path, "changes nothing, which makes clients loop: give uri, authority, port or scheme"
            )
        if redirect.uri and not redirect.uri.startswith("/"):
            self._findings.invalid(f"{path}.uri", f'"{redirect.uri}": a path starts with "/"')
        if redirect.scheme not in ("", "http", "https"):
            self._findings.unsupported(f"{path}.scheme", f'"{redirect.scheme}": use http or https')
        return Redirect(
            scheme=redirect.scheme, host=redirect.authority, port=redirect.port, path=redirect.uri, status=status
        )

    def _direct_response(self, path: str, response: api.HttpDirectResponse) -> DirectResponse:
        self._findings.between(f"{path}.status", response.status, 200, 599)
        body = response.body
        if body is not None and body.bytes:
            self._findings.unsupported(f"{path}.body.bytes", "use body.string")
        content = body.string.encode() if body else b""
        if len(content) > 4096:
            self._findings.invalid(f"{path}.body", f"has {len(content)} bytes, at most 4096 are allowed")
        return DirectResponse(status=response.status, body=content)

    def _forward(self, path: str, route: api.HttpRoute) -> Forward:
        self._check_weights(f"{path}.route", route.route)
        destinations = tuple(
            self._destination(f"{path}.route[{i}]", branch, alone=len(route.route) == 1)
            for i, branch in enumerate(route.route)
        )
        rewrite = route.rewrite
        if rewrite is not None:
            self._check_rewrite(path, route, rewrite)
        return Forward(
            destinations=destinations or (Destination(host=""),),
            timeout_s=self._findings.duration(f"{path}.timeout", route.timeout),
            retry=compile_retry(f"{path}.retries", route.retries, self._findings),
            prefix_rewrite=rewrite.uri if rewrite and rewrite.uri else None,
            host_rewrite=rewrite.authority if rewrite and rewrite.authority else None,
        )

    def _check_rewrite(self, path: str, route: api.HttpRoute, rewrite: api.HttpRewrite) -> None:
        if rewrite.uri and not rewrite.uri.startswith("/"):
            self._findings.invalid(f"{path}.rewrite.uri", f'"{rewrite.uri}": a path starts with "/"')
        if rewrite.uri and any(m.uri is not None and m.uri.regex is not None for m in route.match):
            message = "replaces the matched prefix, and a regex has none: match by prefix or exact"
            self._findings.invalid(f"{path}.rewrite.uri", message)
        if any(c in rewrite.authority for c in " /\r\n%"):
            self._findings.invalid(f"{path}.rewrite.authority", f'"{rewrite.authority}" is no host')

    def _check_weights(self, path: str, branches: Sequence[api.HttpRouteDestination]) -> None:
        weights = [branch.weight for branch in branches]
        for index, weight in enumerate(weights):
            self._findings.between(f"{path}[{index}].weight", weight, 0, 100)
        if len(weights) > 1 and sum(weights) != 100:
            self._findings.invalid(path, f"weights sum to {sum(weights)}, want 100")
        elif len(weights) == 1 and weights[0] not in (0, 100):
            self._findings.invalid(
                f"{path}[0].weight", f"{weights[0]} for the only destination: leave it out, or give 100"
            )

    def _destination(self, path: str, branch: api.HttpRouteDestination, *, alone: bool) -> Destination:
        findings, target = self._findings, branch.destination
        host = self._resolve(target.host)
        port = target.port.number if target.port else 0
        if not host:
            findings.required(f"{path}.destination.host", "name the service to send requests to")
        elif problem := self._registry.host_problem(host):
            findings.invalid(f"{path}.destination.host", problem)
        elif problem := self._registry.subset_problem(host, target.subset):
            findings.invalid(f"{path}.destination.subset", problem)
        elif problem := self._registry.port_problem(host, port):
            findings.invalid(f"{path}.destination.port.number", problem)
        if target.port is not None:
            findings.port(f"{path}.destination.port.number", port)
        headers = branch.headers
        return Destination(
            host=host,
            subset=target.subset,
            port=port,
            weight=100 if alone else branch.weight,
            request_headers=compile_header_operations(f"{path}.headers.request", headers.request, findings),
            response_headers=compile_header_operations(f"{path}.headers.response", headers.response, findings),
            provenance=provenance_of(KIND, self._service.metadata, path),
        )
