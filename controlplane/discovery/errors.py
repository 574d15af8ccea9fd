"""What can go wrong in discovery."""

from mesh.errors import MeshError, RemoteError


class DiscoveryError(MeshError):
    """The root of this room's errors."""


class SnapshotError(DiscoveryError):
    """A built snapshot is not consistent: a bug here; it is not published."""


class DiscoveryConfigError(DiscoveryError):
    """A setting or a file is unusable."""


class ProxyRefusedError(DiscoveryError, RemoteError):
    """A proxy may not have the stream it asks for: no or bad token, or somebody else's identity."""


class TokenCheckUnavailableError(DiscoveryError, RemoteError):
    """The API server could not be asked about a token. Trying again may help."""
