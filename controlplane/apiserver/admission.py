"""The plugins an object passes before it is validated and stored.

The protocol is structural: a plugin elsewhere needs no import from here. The built-in plugins are in admission_*.py and
allocation.py.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from controlplane.apiserver.authentication import Identity
from mesh.api.resources import Json, Resource

Lookup = Callable[[Resource, str, str], Awaitable[Json | None]]
"""(resource, namespace, name) -> the stored object or None. The namespace of cluster-scoped kinds is ""."""


class Operation(StrEnum):
    """What happens to the object."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Claim:
    """A key of the store that only one object may hold, taken in the same transaction as the object is written."""

    key: bytes
    value: bytes


@dataclass(slots=True, kw_only=True)
class AdmissionRequest:
    """One object on its way into (or out of) the store."""

    operation: Operation
    resource: Resource
    subresource: str
    namespace: str
    name: str
    """"" while generateName has not been resolved."""
    object: Json
    """The object as asked for, defaulted. Of a DELETE: the stored one. A plugin may change it and return it."""
    old_object: Json | None
    """The stored object of an UPDATE."""
    identity: Identity
    dry_run: bool
    lookup: Lookup
    claims: list[Claim] = field(default_factory=list)
    """Keys to take with the write; the write is tried again from the start when one of them is taken meanwhile."""
    releases: list[bytes] = field(default_factory=list)
    """Keys to give back with the write."""


class Admission(Protocol):
    """One plugin. Called in order, on the event loop, once per try of a write."""

    async def admit(self, request: AdmissionRequest) -> Json:
        """The object to go on with (of a DELETE the result is ignored). Raises ApiStatusError to refuse."""
        ...
