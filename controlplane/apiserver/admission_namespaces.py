"""Nothing is created in a namespace that is missing or on its way out, and the system's namespaces stay."""

from controlplane.apiserver import errors
from controlplane.apiserver.admission import AdmissionRequest, Operation
from mesh.api.resources import NAMESPACES, Json

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
"""Source: Kubernetes' NamespaceLifecycle plugin."""


class NamespaceLifecycle:
    """The plugin."""

    async def admit(self, request: AdmissionRequest) -> Json:
        if request.operation is Operation.DELETE:
            _refuse_immortal(request)
        elif request.operation is Operation.CREATE and request.resource.is_namespaced and not request.subresource:
            await _check_namespace(request)
        return request.object


def _refuse_immortal(request: AdmissionRequest) -> None:
    if request.resource.key == NAMESPACES.key and request.name in IMMORTAL:
        raise errors.refused(NAMESPACES, request.name, "this namespace may not be deleted")


async def _check_namespace(request: AdmissionRequest) -> None:
    namespace = await request.lookup(NAMESPACES, "", request.namespace)
    if namespace is None:
        raise errors.not_found(NAMESPACES, request.namespace)
    if namespace["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
        cause = errors.cause("metadata.namespace", f"namespace {request.namespace} is being terminated")
        cause["reason"] = "NamespaceTerminating"
        raise errors.refused(request.resource, request.name, why, [cause])
