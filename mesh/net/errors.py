"""What can go wrong between a process and the kernel or its neighbours."""

from mesh.errors import MeshError, RemoteError


class NetError(MeshError):
    """The root of this room's errors."""


class ContainerSetUpError(NetError):
    """A child could not be put into its namespaces, mounts or capabilities. Nothing was started."""


class SpawnError(NetError):
    """A spawner refused a request, or the program could not be started."""


class SpawnerGoneError(NetError, RemoteError):
    """The spawner's socket is closed. Its children have ended with it."""
