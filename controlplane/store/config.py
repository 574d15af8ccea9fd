"""How the embedded store is bounded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteConfig:
    """Bounds of the embedded store."""

    cache_bytes: int = 64 << 20
    """Values of live keys kept in memory. Bytes, > 0."""
    history_bytes: int = 32 << 20
    """Newest changes kept in memory for watches and reads a little in the past. Bytes, > 0."""
    history_revisions: int = 50_000
    """The same bound in transactions, > 0."""
    pending_bytes: int = 64 << 20
    """Writes on their way to the disk; `txn` waits while there are more. Bytes, > 0."""
    quota_bytes: int = 0
    """Refuse writes (StoreFullError) when the file would grow past this; 0 = only the disk limits. Bytes."""
