"""Every pod runs as a service account of its namespace.

DEVIATION: the account `default` need not exist yet when a pod is created (its controller may be a moment behind; the
node agent waits for the token); any other account must.
"""

from controlplane.apiserver import errors
from controlplane.apiserver.admission import AdmissionRequest, Operation
from mesh.api.resources import PODS, SERVICE_ACCOUNTS, Json

DEFAULT_ACCOUNT = "default"


class ServiceAccountAdmission:
    """The plugin."""

    async def admit(self, request: AdmissionRequest) -> Json:
        if request.resource.key != PODS.key or request.subresource or request.operation is not Operation.CREATE:
            return request.object
        spec = request.object.setdefault("spec", {})
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
        if account != DEFAULT_ACCOUNT:
            found = await request.lookup(SERVICE_ACCOUNTS, request.namespace, account)
            if found is None:
                why = f"error looking up service account {request.namespace}/{account}: it does not exist; create it first"
                raise errors.refused(PODS, request.name, why)
        spec["serviceAccountName"] = account
        spec["serviceAccount"] = account
        return request.object
