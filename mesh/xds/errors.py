"""What can be wrong with a resource or with the stream that brings it."""

from mesh.errors import RemoteError, UserError


class DecodeError(UserError):
    """A resource can't be used. Names the field by its path and says what to change."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class XdsStreamError(RemoteError):
    """The stream to the control plane failed. The client tries again by itself."""
