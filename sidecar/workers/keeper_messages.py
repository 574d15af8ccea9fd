"""What the keeper and the control process say to each other: one msgpack value per packet of a SOCK_SEQPACKET pair."""

from typing import Final

import msgspec

MAX_PACKET_BYTES: Final = 4096


class Started(msgspec.Struct, frozen=True, tag=True):
    """Keeper: a worker lives. Comes with the control process's end of its channel (SCM_RIGHTS)."""

    index: int
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Keeper: a worker has ended without being told to."""

    index: int
    pid: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Control: this worker hangs; end it."""

    index: int
    pid: int


class Stopping(msgspec.Struct, frozen=True, tag=True):
    """Control: workers end because they were told to; start none."""


ENCODER: Final = msgspec.msgpack.Encoder()
FROM_KEEPER: Final = msgspec.msgpack.Decoder(Started | Ended)
FROM_CONTROL: Final = msgspec.msgpack.Decoder(Kill | Stopping)
