"""What discovery makes of policies."""

from dataclasses import dataclass

from mesh.api.gateway import ParentReference
from mesh.api.resources import Resource
from mesh.routing.table import Provenance
from policies.values import Visibility


@dataclass(frozen=True, slots=True)
class PolicyId:
    """One policy object."""

    resource: Resource
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentVerdict:
    """On one Service that an HTTPRoute is for."""

    ref: ParentReference
    is_accepted: bool
    reason: str
    message: str = ""
    unresolved: tuple[str, str] = ("", "")
    """(reason, message) when some backend cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What discovery makes of one generation of a policy."""

    generation: int
    is_accepted: bool
    reason: str
    """A CamelCase word for the condition."""
    message: str
    parents: tuple[ParentVerdict, ...] = ()
    """Of an HTTPRoute, which is accepted when one of them is."""


def overlap(one: Visibility, other: Visibility) -> bool:
    """Whether some namespace sees both."""
    return not one.namespaces or not other.namespaces or bool(one.namespaces & other.namespaces)


def object_name(provenance: Provenance) -> str:
    """`VirtualService shop/web (web.yaml:14)`."""
    source = f" ({provenance.file}:{provenance.line})" if provenance.file else ""
    return f"{provenance.kind} {provenance.namespace}/{provenance.name}{source}"
