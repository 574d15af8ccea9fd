"""VirtualService -> the routes of its hosts."""

from mesh.api import networking as api
from mesh.routing.table import DirectResponse
from policies.checks import Findings
from policies.errors import Problems
from policies.headers import compile_header_operations
from policies.hosts import resolve_host
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.route_answers import compile_direct_response, compile_redirect
from policies.route_cors import compile_cors
from policies.route_faults import compile_fault
from policies.route_forward import ForwardCompiler
from policies.route_match import ANY, compile_matches
from policies.route_retry import retriable_headers_of
from policies.values import CompiledRoute, CompiledVirtualService, Forward, Match, RedirectTo
from policies.visibility import compile_visibility

KIND = "VirtualService"
REPLAY_ANNOTATION = "meshwork.dev/replay"
"""`any`: retries may repeat any request of the VirtualService's routes, whatever of it was sent."""


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
        self._meta = service.metadata
        self._repeats_any = self._replay()
        self._forwards = ForwardCompiler(
            kind=KIND,
            meta=service.metadata,
            registry=registry,
            findings=findings,
            retriable_headers=retriable_headers_of(service.metadata.annotations, findings),
        )

    def _replay(self) -> bool:
        value = self._meta.annotations.get(REPLAY_ANNOTATION)
        if value not in (None, "any", "safe"):
            self._findings.unsupported(f"metadata.annotations[{REPLAY_ANNOTATION}]", f'"{value}": use any or safe')
        return value == "any"

    def hosts(self) -> tuple[str, ...]:
        hosts: list[str] = []
        for index, host in enumerate(self._service.spec.hosts):
            path = f"spec.hosts[{index}]"
            resolved = resolve_host(host, self._meta.namespace, self._registry.ports, self._registry.domain)
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
        seen: dict[Match, str] = {}
        for index, route in enumerate(self._service.spec.http):
            path = f"spec.http[{index}]"
            if everything := seen.get(ANY):
                self._findings.invalid(path, f"is never reached: {everything} takes every request; put this one first")
            compiled.append(self._route(path, route))
            self._check_duplicates(path, compiled[-1], seen)
        return tuple(compiled)

    def _check_duplicates(self, path: str, route: CompiledRoute, seen: dict[Match, str]) -> None:
        for position, match in enumerate(route.matches):
            earlier = seen.setdefault(match.condition, path)
            if earlier != path and match.condition != ANY:
                here = f"{path}.match[{position}]"
                self._findings.duplicate(here, f"is never reached: {earlier} has the same match; remove one of them")

    def _route(self, path: str, route: api.HttpRoute) -> CompiledRoute:
        findings = self._findings
        return CompiledRoute(
            name=route.name,
            matches=compile_matches(f"{path}.match", route.match, findings),
            action=self._action(path, route),
            cors=compile_cors(f"{path}.corsPolicy", route.cors_policy, findings),
            fault=compile_fault(f"{path}.fault", route.fault, findings),
            repeats_any=self._repeats_any,
            request_headers=compile_header_operations(f"{path}.headers.request", route.headers.request, findings),
            response_headers=compile_header_operations(f"{path}.headers.response", route.headers.response, findings),
            provenance=provenance_of(KIND, self._meta, path),
        )

    def _action(self, path: str, route: api.HttpRoute) -> Forward | RedirectTo | DirectResponse:
        findings = self._findings
        if route.delegate is not None:
            findings.unsupported(f"{path}.delegate", "delegation is not supported: put the routes here")
        actions = {"route": route.route, "redirect": route.redirect, "directResponse": route.direct_response}
        given = [name for name, value in actions.items() if value]
        if len(given) > 1:
            findings.invalid(path, f"has {' and '.join(given)}: give only one of them")
        if route.redirect is None and route.direct_response is None:
            if not given and route.delegate is None:
                findings.required(f"{path}.route", "give at least one destination")
            return self._forwards.compile(path, route)
        self._check_only_forwarding(path, route)
        if route.redirect is not None:
            return compile_redirect(f"{path}.redirect", route.redirect, findings)
        assert route.direct_response is not None  # the case above
        return compile_direct_response(f"{path}.directResponse", route.direct_response, findings)

    def _check_only_forwarding(self, path: str, route: api.HttpRoute) -> None:
        """What has no meaning without an upstream. Source: Istio's validation of redirects."""
        fields = {
            "rewrite": route.rewrite,
            "mirror": route.mirror,
            "mirrors": route.mirrors,
            "retries": route.retries,
            "timeout": route.timeout,
        }
        for name, value in fields.items():
            if value:
                self._findings.invalid(f"{path}.{name}", "has no meaning without a destination: remove it")
