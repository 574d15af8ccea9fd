"""What can go wrong on a node's network."""

from mesh.errors import MeshError, RemoteError


class NetworkError(MeshError):
    """A namespace, link, address, route or rule could not be made."""


class AddressesExhaustedError(NetworkError):
    """The node's pod range has no free address left."""


class RulesError(NetworkError):
    """nft refused a set of rules. Nothing of it was applied."""


class PortHelperError(RemoteError):
    """The launcher outside did not open a port of the machine."""
