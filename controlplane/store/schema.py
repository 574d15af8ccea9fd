"""The store's file: one append-only table of versions, the leases, and a few numbers."""

import sqlite3
from typing import Final

FORMAT: Final = 1

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY,
    previous INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY, ttl_s REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO numbers VALUES ('compacted', 0), ('scrubbed', 0);
"""
# `value` is last: SQLite reads the small columns of a long row without touching its overflow pages.


def prepare(db: sqlite3.Connection) -> None:
    """Create the tables if the file is new. Raises ValueError when a newer version of Meshwork wrote it."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > FORMAT:
        raise ValueError(f"the store has format {found}, this version reads up to {FORMAT}: start a newer Meshwork")
    db.executescript(_CREATE)
    db.execute(f"PRAGMA user_version = {FORMAT}")


def number(db: sqlite3.Connection, name: str) -> int:
    """One of the stored numbers."""
    return int(db.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()[0])
