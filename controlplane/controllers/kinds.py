"""Every resource the server serves: the built-in ones and those of CustomResourceDefinitions. Pure."""

from collections.abc import Iterable
from typing import Any

from mesh.api.resources import BUILTIN, Json, Resource


def resource_of_crd(crd: Json) -> Resource | None:
    """The resource a CustomResourceDefinition defines (its storage version); None while it is not established."""
    spec = crd.get("spec") or {}
    conditions = (crd.get("status") or {}).get("conditions") or []
    if not any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        return None
    served = [version for version in spec.get("versions") or [] if version.get("served")]
    if not served:
        return None
    version = next((v for v in served if v.get("storage")), served[0])
    names: dict[str, Any] = spec.get("names") or {}
    return Resource(
        group=str(spec.get("group", "")),
        version=str(version.get("name", "")),
        plural=str(names.get("plural", "")),
        kind=str(names.get("kind", "")),
        is_namespaced=spec.get("scope") == "Namespaced",
        singular=str(names.get("singular") or ""),
    )


def served_resources(crds: Iterable[Json]) -> dict[tuple[str, str], Resource]:
    """(group, plural) -> resource."""
    result = {resource.key: resource for resource in BUILTIN}
    for crd in crds:
        resource = resource_of_crd(crd)
        if resource is not None:
            result.setdefault(resource.key, resource)
    return result
