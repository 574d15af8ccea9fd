"""Two admission plugins: pods get their sidecar, and policies that can never work are refused before they are stored.

They fit `controlplane.apiserver.admission.Admission` by shape; the API server's package is not imported. What is refused is
told through the functions given at construction (the API server's `errors.refused` and `errors.invalid`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mesh.api.resources import (
    DESTINATION_RULES,
    HTTP_ROUTES,
    NAMESPACES,
    PODS,
    TRAFFIC_LIMITS,
    VIRTUAL_SERVICES,
    Json,
    Resource,
)
from policies.errors import InjectionError
from policies.injection import DEFAULT_CONFIG, InjectionConfig, decide, inject_pod
from policies.validation import validate_policy

Refuse = Callable[[Resource, str, str], Exception]
"""(resource, name, why) -> the error to raise, which the client sees as a 403."""
RefuseFields = Callable[[Resource, str, Sequence[Json]], Exception]
"""(resource, name, causes with field, reason and message) -> the error to raise, which the client sees as a 422."""


class Request(Protocol):
    """What the plugins read of an admission request."""

    @property
    def operation(self) -> str: ...
    @property
    def resource(self) -> Resource: ...
    @property
    def subresource(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def object(self) -> Json: ...
    @property
    def lookup(self) -> Callable[[Resource, str, str], Awaitable[Json | None]]: ...


class SidecarInjector:
    """Adds the sidecar to pods on creation. Runs after the service account plugin and before validation."""

    def __init__(self, refuse: Refuse, config: InjectionConfig = DEFAULT_CONFIG) -> None:
        self._refuse = refuse
        self._config = config

    async def admit(self, request: Request) -> Json:
        """The pod with its sidecar, or the object unchanged. Raises what `refuse` makes."""
        if request.operation != "CREATE" or request.resource.key != PODS.key or request.subresource:
            return request.object
        namespace = await request.lookup(NAMESPACES, "", request.namespace)
        labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
        if not decide(request.object, request.namespace, labels).injects:
            return request.object
        try:
            return inject_pod(request.object, self._config)
        except InjectionError as exc:
            raise self._refuse(PODS, request.name, str(exc)) from exc


class PolicyGate:
    """Refuses VirtualServices, DestinationRules, HTTPRoutes and TrafficLimits that are wrong in themselves.

    References to hosts and subsets are not looked at: these may come later. Discovery reports them in the status.
    """

    def __init__(self, refuse: RefuseFields) -> None:
        self._refuse = refuse

    async def admit(self, request: Request) -> Json:
        """The object unchanged. Raises what `refuse` makes of every error, each with its field path."""
        kinds = (VIRTUAL_SERVICES.key, DESTINATION_RULES.key, HTTP_ROUTES.key, TRAFFIC_LIMITS.key)
        if request.operation == "DELETE" or request.resource.key not in kinds or request.subresource:
            return request.object
        if errors := validate_policy(request.object):
            causes = [{"field": e.path, "reason": e.reason, "message": e.message} for e in errors]
            raise self._refuse(request.resource, request.name, causes)
        return request.object
