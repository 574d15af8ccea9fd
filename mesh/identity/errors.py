"""What can go wrong with keys, certificates and tokens. Nothing of `cryptography` or `ssl` leaves this room."""

from mesh.errors import MeshError, UserError


class PkiError(MeshError):
    """A key or certificate on disk can't be read, doesn't belong to its CA or can't be written."""


class KubeconfigError(UserError):
    """A kubeconfig can't be written."""


class TokenError(MeshError):
    """A service account token is malformed, expired, not yet valid, for another audience or not signed by us.

    The message never contains the token.
    """
