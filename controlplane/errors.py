"""What can go wrong with the control plane as a process."""

from mesh.errors import MeshError, UserError


class ControlPlaneConfigError(UserError):
    """The configuration file can't be used."""


class PartEndedError(MeshError):
    """A part that should run for ever has ended; the process ends with it, and its supervisor starts it anew."""
