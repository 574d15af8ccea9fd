"""What can go wrong when traces are received or read."""

from mesh.errors import MeshError


class TracesError(MeshError):
    """The receiver can't do its work."""
