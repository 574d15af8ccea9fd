"""Which kinds the server serves now: the built-in ones and those that CustomResourceDefinitions add."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.api.resources import BUILTIN, DESTINATION_RULES, HTTP_ROUTES, VIRTUAL_SERVICES, Json, Resource

OTHER_VERSIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    VIRTUAL_SERVICES.key: ("v1beta1", "v1alpha3"),
    DESTINATION_RULES.key: ("v1beta1", "v1alpha3"),
    HTTP_ROUTES.key: ("v1beta1",),
}
"""Older versions of built-in kinds that have the same shape: served and stored as the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrinterColumn:
    """A column of `kubectl get` that a CustomResourceDefinition asks for."""

    name: str
    type: str
    path: str
    """A simple JSONPath like `.spec.replicas`."""
    description: str = ""
    priority: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePaths:
    """Where a kind keeps its replica counts, as simple JSONPaths."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ""
    """Path of a selector string in the status; "" for the built-in kinds, which have spec.selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one served version."""

    resource: Resource
    """As served."""
    stored: Resource
    """As stored."""
    is_custom: bool = False
    schema: Mapping[str, Any] | None = None
    """The CRD's openAPIV3Schema; None for built-in kinds."""
    columns: tuple[PrinterColumn, ...] | None = None
    scale: ScalePaths | None = None

    @property
    def has_status(self) -> bool:
        return "status" in self.resource.subresources


@dataclass(slots=True)
class KindRegistry:
    """The served kinds, by group, version and plural. Changes on the event loop only."""

    _kinds: dict[tuple[str, str, str], Kind] = field(default_factory=dict)
    _custom: dict[str, tuple[Kind, ...]] = field(default_factory=dict)
    """CRD name -> the kinds it added."""
    generation: int = 0
    """Grows with every change: a key for caches of discovery and OpenAPI documents."""

    @classmethod
    def builtin(cls, resources: Sequence[Resource] = BUILTIN) -> "KindRegistry":
        """A registry of `resources` and their other versions."""
        registry = cls()
        for resource in resources:
            for version in (resource.version, *OTHER_VERSIONS.get(resource.key, ())):
                served = replace(resource, version=version)
                registry._kinds[(resource.group, version, resource.plural)] = Kind(resource=served, stored=resource)
        return registry

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind at that place of the URL space."""
        return self._kinds.get((group, version, plural))

    def preferred(self, resource: Resource) -> Kind:
        """The kind of a built-in resource constant."""
        return self._kinds[(resource.group, resource.version, resource.plural)]

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._kinds.values()))

    def in_group(self, group: str, version: str) -> tuple[Kind, ...]:
        """The kinds of one group version; empty when it is not served."""
        return tuple(k for k in self._kinds.values() if (k.resource.group, k.resource.version) == (group, version))

    def group_versions(self) -> dict[str, list[str]]:
        """Group -> its versions, the preferred one first."""
        groups: dict[str, list[str]] = {}
        for kind in self._kinds.values():
            versions = groups.setdefault(kind.resource.group, [])
            if kind.resource.version not in versions:
                versions.append(kind.resource.version)
        return groups

    def is_taken(self, group: str, plural: str, kind: str, *, by_other_than: str) -> str:
        """Why a CRD may not have these names: the sentence, or "" if it may."""
        own = self._custom.get(by_other_than, ())
        for other in self._kinds.values():
            if other in own or other.resource.group != group:
                continue
            if other.resource.plural == plural:
                return f"plural {plural!r} is served already"
            if other.resource.kind == kind:
                return f"kind {kind!r} is served already"
        return ""

    def custom(self, crd_name: str) -> tuple[Kind, ...]:
        """The kinds a CRD added."""
        return self._custom.get(crd_name, ())

    def set_custom(self, crd_name: str, kinds: Sequence[Kind]) -> None:
        """Serve exactly `kinds` for a CRD (none: it is gone). Built-in kinds are never replaced."""
        if self._custom.get(crd_name, ()) == tuple(kinds):
            return
        for old in self._custom.pop(crd_name, ()):
            del self._kinds[_place(old)]
        added = tuple(kind for kind in kinds if _place(kind) not in self._kinds)
        for kind in added:
            self._kinds[_place(kind)] = kind
        if added:
            self._custom[crd_name] = added
        self.generation += 1


def _place(kind: Kind) -> tuple[str, str, str]:
    return kind.resource.group, kind.resource.version, kind.resource.plural


def kinds_of(crd: Json) -> tuple[Kind, ...]:
    """The kinds a (validated) CustomResourceDefinition adds, one per served version, the storage version first."""
    spec = crd["spec"]
    versions = spec["versions"]
    storage = next((v["name"] for v in versions if v.get("storage")), versions[0]["name"])
    kinds = [_kind_of(spec, version, storage) for version in versions if version.get("served", False)]
    return tuple(sorted(kinds, key=lambda k: k.resource.version != storage))


def _kind_of(spec: Json, version: Json, storage: str) -> Kind:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    resource = Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        is_namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(name for name in ("status", "scale") if name in subresources),
    )
    return Kind(
        resource=resource,
        stored=replace(resource, version=storage),
        is_custom=True,
        schema=(version.get("schema") or {}).get("openAPIV3Schema"),
        columns=_columns(version.get("additionalPrinterColumns")),
        scale=None if scale is None else _scale(scale),
    )


def _columns(asked: Sequence[Json] | None) -> tuple[PrinterColumn, ...] | None:
    if not asked:
        return None
    return tuple(
        PrinterColumn(
            name=one["name"],
            type=one["type"],
            path=one["jsonPath"],
            description=one.get("description", ""),
            priority=one.get("priority", 0),
            format=one.get("format", ""),
        )
        for one in asked
    )


def _scale(asked: Json) -> ScalePaths:
    return ScalePaths(
        spec_replicas=asked["specReplicasPath"],
        status_replicas=asked["statusReplicasPath"],
        selector=asked.get("labelSelectorPath", ""),
    )
