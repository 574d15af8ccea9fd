"""What can keep a cluster from starting."""

from mesh.errors import MeshError


class ClusterError(MeshError):
    """The cluster's configuration, namespaces or network can't be made. The message says what to do."""
