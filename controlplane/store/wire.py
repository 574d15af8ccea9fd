"""What the store and its writer process say to each other over their socket pair.

A frame is a 4-byte big-endian length and that many bytes of MessagePack. The store sends `Batch`es, numbered from 1; the writer
first answers READY, then acknowledges batches in order. One ACK covers every batch up to its number.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

HEADER: Final = struct.Struct(">I")

Column = int | bytes | None
ROW_COLUMNS: Final = 7
"""id, id of the key's previous version or 0, create_revision, version, lease, key, value or None for a deletion."""

ROW_BITS: Final = 16
"""A row's id is `revision << ROW_BITS | position in the transaction`: rowid order is history."""
MAX_OPS: Final = (1 << ROW_BITS) - 1


def first_row(revision: int) -> int:
    """The smallest id a row of `revision` can have."""
    return revision << ROW_BITS


class Batch(msgspec.Struct, array_like=True):
    """Everything one tick of the store's loop wants on disk; stored whole or not at all."""

    seq: int
    epoch: int
    """Grows when the writer refused a batch; later batches of the refused epoch are dropped."""
    rows: list[Column]
    """ROW_COLUMNS values for each row, one after the other: what SQLite takes, without a tuple per row."""
    granted: list[tuple[int, float]]
    """New leases: (id, TTL in seconds)."""
    dropped: list[int]
    """Leases that ended."""
    compact: int
    """Versions superseded at or before this revision may go; 0 = no change."""


class AnswerKind(IntEnum):
    """What the writer reports."""

    READY = 1
    ACK = 2
    REFUSED = 3
    """The disk or the quota is full; `number` is the epoch that was refused."""
    FATAL = 4
    """The writer ends; what is not acknowledged is unknown."""


class Answer(msgspec.Struct, array_like=True):
    """One report of the writer."""

    kind: AnswerKind
    number: int
    text: str = ""


class FrameBuffer:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, without their headers."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        position = 0
        while len(buffer) - position >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer, position)
            end = position + HEADER.size + length
            if end > len(buffer):
                break
            frames.append(bytes(buffer[position + HEADER.size : end]))
            position = end
        del buffer[:position]
        return frames


def frame(payload: bytes) -> bytes:
    """`payload` with its length in front."""
    return HEADER.pack(len(payload)) + payload
