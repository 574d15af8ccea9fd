"""The root of every error Meshwork raises on purpose. Each package derives its own in its `errors.py`."""


class MeshError(Exception):
    """Something went wrong that a person can act on. The message says what, where and what to do."""


class UserError(MeshError):
    """The input is at fault: a manifest, a flag, a policy. Nothing was changed."""


class RemoteError(MeshError):
    """Another process or the network is at fault. Trying again may help."""
