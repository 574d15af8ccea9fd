"""What can go wrong on a node."""

from mesh.errors import MeshError, UserError


class NodeError(MeshError):
    """The root of this application's own errors."""


class NodeConfigError(NodeError, UserError):
    """The configuration file cannot be used."""


class ContainerConfigError(NodeError, UserError):
    """A container's environment, volumes or command cannot be made from the objects it names. May pass by itself."""


class ImageError(NodeError, UserError):
    """No HostImage stands in for the image."""


class NotReadyError(NodeError):
    """The node does not know enough yet; it will."""


class VolumeError(NodeError):
    """A volume cannot be made now."""


class StateError(NodeError):
    """A pod's state file is unusable."""


class LogError(NodeError):
    """A log that was asked for is not there."""
