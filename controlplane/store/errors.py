"""What can go wrong with a store. Nothing of sqlite3, grpc or OSError leaves this room."""

from mesh.errors import MeshError


class StoreError(MeshError):
    """The root of this room's errors."""


class CompactedError(StoreError):
    """The revision asked for has been compacted away; start again from a fresh list."""

    def __init__(self, asked: int, compacted: int) -> None:
        super().__init__(
            f"revision {asked} has been compacted (compacted up to {compacted}): list again and watch from there"
        )
        self.asked = asked
        self.compacted = compacted


class FutureRevisionError(StoreError):
    """The revision asked for does not exist yet."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is in the future (the store is at {current})")
        self.asked = asked
        self.current = current


class LeaseNotFoundError(StoreError):
    """The lease expired, was revoked or never existed."""


class StoreClosedError(StoreError):
    """The store was closed, or its writer has died; unacknowledged writes may or may not be on disk."""


class StoreFullError(StoreError):
    """The disk refused the write; nothing was stored."""


class StoreLockedError(StoreError):
    """Another process has the store's file open; only one may write it."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(
            f"store {path} is in use by process {holder or 'unknown'}: stop that one first, or use another home"
        )
        self.path = path


class StoreOpenError(StoreError):
    """The store's file can't be opened: not a store, a newer format, no permission, or a broken disk."""
