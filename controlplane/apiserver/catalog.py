"""Discovery: which groups, versions and kinds there are, in the plain form and the aggregated one.

Source: Kubernetes API concepts, "Discovery API".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.apiserver.kinds import Kind, KindRegistry
from mesh.api.resources import Json

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Review:
    """A kind that is only ever created, and answered at once."""

    group: str
    plural: str
    kind: str


REVIEWS = (
    Review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    Review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    Review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    Review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
)


@dataclass(frozen=True, slots=True)
class SubresourceForm:
    """What a subresource is called and allows."""

    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


def _subresource(kind: Kind, name: str) -> SubresourceForm:
    match name:
        case "scale":
            return SubresourceForm("Scale", ("get", "patch", "update"), "autoscaling", "v1")
        case "token":
            return SubresourceForm("TokenRequest", ("create",), "authentication.k8s.io", "v1")
        case "binding":
            return SubresourceForm("Binding", ("create",))
        case "log":
            return SubresourceForm(kind.resource.kind, ("get",))
        case "proxy":
            return SubresourceForm(f"{kind.resource.kind}ProxyOptions", ("create", "delete", "get", "patch", "update"))
        case "finalize":
            return SubresourceForm(kind.resource.kind, ("update",))
        case _:
            return SubresourceForm(kind.resource.kind, ("get", "patch", "update"))


def group_versions(kinds: KindRegistry) -> dict[str, list[str]]:
    """Every served group and its versions, reviews included; the core group is ""."""
    groups = kinds.group_versions()
    for review in REVIEWS:
        groups.setdefault(review.group, ["v1"])
    return groups


def core_versions() -> Json:
    """GET /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_group(group: str, versions: Sequence[str]) -> Json:
    """GET /apis/GROUP."""
    shown = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": shown, "preferredVersion": shown[0]}


def api_group_list(kinds: KindRegistry) -> Json:
    """GET /apis."""
    groups = [api_group(group, versions) for group, versions in group_versions(kinds).items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_resource_list(kinds: KindRegistry, group: str, version: str) -> Json | None:
    """GET /apis/GROUP/VERSION or /api/v1; None when it isn't served."""
    entries = [entry for kind in kinds.in_group(group, version) for entry in _entries(kind)]
    entries += [_review_entry(review) for review in REVIEWS if (review.group, "v1") == (group, version)]
    if not entries:
        return None
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _entries(kind: Kind) -> list[Json]:
    resource = kind.resource
    entry: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.is_namespaced,
        "kind": resource.kind,
        "verbs": list(VERBS),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entries = [entry]
    for name in resource.subresources:
        form = _subresource(kind, name)
        below: Json = {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.is_namespaced,
            "kind": form.kind,
            "verbs": list(form.verbs),
        }
        if form.group:
            below["group"], below["version"] = form.group, form.version
        entries.append(below)
    return entries


def _review_entry(review: Review) -> Json:
    return {
        "name": review.plural,
        "singularName": review.kind.lower(),
        "namespaced": False,
        "kind": review.kind,
        "verbs": ["create"],
    }


def aggregated(kinds: KindRegistry, *, core: bool) -> Json:
    """The APIGroupDiscoveryList of /api (`core`) or /apis."""
    groups: Mapping[str, list[str]] = group_versions(kinds)
    items = [_group(kinds, group, versions) for group, versions in groups.items() if (group == "") == core]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _group(kinds: KindRegistry, group: str, versions: Sequence[str]) -> Json:
    return {
        "metadata": {"name": group} if group else {"creationTimestamp": None},
        "versions": [
            {"version": version, "freshness": "Current", "resources": _aggregated_resources(kinds, group, version)}
            for version in versions
        ],
    }


def _aggregated_resources(kinds: KindRegistry, group: str, version: str) -> list[Json]:
    return [
        *(_aggregated(kind) for kind in kinds.in_group(group, version)),
        *(_aggregated_review(review) for review in REVIEWS if (review.group, "v1") == (group, version)),
    ]


def _aggregated_review(review: Review) -> Json:
    return {
        "resource": review.plural,
        "responseKind": {"group": review.group, "version": "v1", "kind": review.kind},
        "scope": "Cluster",
        "singularResource": review.kind.lower(),
        "verbs": ["create"],
    }


def _aggregated(kind: Kind) -> Json:
    resource = kind.resource
    entry: Json = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.is_namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(VERBS),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [_aggregated_subresource(kind, name) for name in resource.subresources]
    return entry


def _aggregated_subresource(kind: Kind, name: str) -> Json:
    form = _subresource(kind, name)
    group = form.group or kind.resource.group
    version = form.version or kind.resource.version
    return {
        "subresource": name,
        "responseKind": {"group": group, "version": version, "kind": form.kind},
        "verbs": list(form.verbs),
    }
