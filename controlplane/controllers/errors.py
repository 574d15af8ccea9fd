"""What can go wrong in a control loop, apart from the API's own errors."""

from mesh.errors import MeshError


class ControllerError(MeshError):
    """A control loop can't do its work on an object; it will try again."""
