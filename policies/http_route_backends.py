"""The backends of an HTTPRoute."""

from dataclasses import dataclass, field

from mesh.api import gateway as api
from mesh.api.meta import ObjectMeta
from policies.checks import Findings
from policies.hosts import service_host
from policies.http_route_values import ReferenceProblem
from policies.registry import Registry
from policies.values import Destination

_NOWHERE = Destination(host="")


@dataclass(frozen=True, slots=True)
class Backends:
    """Resolves references and remembers those that lead nowhere."""

    meta: ObjectMeta
    registry: Registry
    findings: Findings
    problems: list[ReferenceProblem] = field(default_factory=list)

    def resolve(self, path: str, ref: api.BackendObjectReference | api.BackendRef) -> Destination | None:
        """The Service; None when it cannot be used, and a problem is noted."""
        if ref.kind == "Service" and not ref.port:
            self.findings.required(f"{path}.port", "say which port of the Service")
            return None
        namespace = ref.namespace or self.meta.namespace
        host = service_host(ref.name, namespace, self.registry.domain)
        reason, message = self._problem(ref, namespace, host)
        if reason:
            self.problems.append(ReferenceProblem(reason=reason, message=f"{path}: {message}"))
            return None
        return Destination(host=host, port=ref.port)

    def _problem(self, ref: api.BackendObjectReference | api.BackendRef, namespace: str, host: str) -> tuple[str, str]:
        """(reason, message), empty when there is none."""
        if ref.kind != "Service" or ref.group not in ("", "core"):
            return "InvalidKind", f"{ref.group or 'core'}/{ref.kind} is no Service"
        if namespace != self.meta.namespace:
            advice = "ReferenceGrants are not supported: put the route into that namespace"
            return "RefNotPermitted", f"Service {namespace}/{ref.name} is in another namespace; {advice}"
        problem = self.registry.host_problem(host) or self.registry.port_problem(host, ref.port)
        return ("BackendNotFound", problem) if problem else ("", "")

    def branch(self, path: str, ref: api.BackendRef) -> Destination:
        """As `resolve`, but a host that nobody has instead of None: its share of the requests fails."""
        return self.resolve(path, ref) or _NOWHERE
