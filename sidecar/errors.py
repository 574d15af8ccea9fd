"""What can go wrong in a sidecar that somebody can act on."""

from mesh.errors import MeshError, UserError


class SnapshotError(UserError):
    """A snapshot cannot be applied. The one before stays in force."""


class ListenError(MeshError):
    """A listener's address cannot be bound."""
