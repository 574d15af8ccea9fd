"""What can go wrong between the processes of one proxy."""

from mesh.errors import MeshError, RemoteError


class FrameError(RemoteError):
    """What came over a channel can't be read, or what should go is too long. The channel is given up."""


class WorkerLostError(RemoteError):
    """A worker ended, or did not answer in time."""


class WorkerRefusedError(MeshError):
    """A worker can't put a configuration in force; none of them does. The message is the worker's."""
