"""What the control process and a worker say to each other: msgpack in frames with a length in front. Pure.

The control process asks, the worker answers each question that has a serial with one `Done`, in order. `Stage` has no answer; what
is wrong with it comes with the answer to `Prepare`.
"""

import struct
from typing import Final

import msgspec

from sidecar.workers.errors import FrameError

MAX_FRAME_BYTES: Final = 64 << 20
"""A frame that says it is longer breaks the channel."""
MAX_STAGE_BYTES: Final = 4 << 20
"""Resources are handed over in pieces of about this size."""

_LENGTH: Final = struct.Struct(">I")


class Stage(msgspec.Struct, frozen=True, tag=True):
    """Resources that the next `Prepare` is about."""

    put: list[tuple[str, str, bytes | None]]
    """(type URL, name, google.protobuf.Any as bytes); None: it is known to be empty (endpoints)."""
    drop: list[tuple[str, str]]


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Make everything ready for what was staged, or for the snapshot the worker was started with; change nothing yet."""

    serial: int
    ports: dict[str, int]
    """Ports of listeners that ask for any (`sidecar.server.bind_key`)."""


class Commit(msgspec.Struct, frozen=True, tag=True):
    """Put what was prepared in force."""

    serial: int


class Discard(msgspec.Struct, frozen=True, tag=True):
    """Forget what was prepared and staged."""

    serial: int


class Scrape(msgspec.Struct, frozen=True, tag=True):
    """Your metrics page, please."""

    serial: int


class Show(msgspec.Struct, frozen=True, tag=True):
    """Your admin page at `path`, please."""

    serial: int
    path: str


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take nothing new, finish, answer, end."""

    serial: int
    timeout_s: float


Question = Stage | Prepare | Commit | Discard | Scrape | Show | Drain


class Done(msgspec.Struct, frozen=True):
    """The answer to the question with this serial."""

    serial: int
    error: str = ""
    """Why not; empty when it was done."""
    body: bytes = b""
    content_type: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_QUESTIONS: Final[msgspec.msgpack.Decoder[Question]] = msgspec.msgpack.Decoder(Question)
_ANSWERS: Final = msgspec.msgpack.Decoder(Done)


def frame(message: Question | Done) -> bytes:
    """A message as it goes over the channel. Raises FrameError when it is too long."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a {type(message).__name__} of {len(body)} bytes is more than {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def question(body: bytes) -> Question:
    """Raises FrameError."""
    try:
        return _QUESTIONS.decode(body)
    except msgspec.MsgspecError as exc:
        raise FrameError(f"not a question: {exc}") from exc


def answer(body: bytes) -> Done:
    """Raises FrameError."""
    try:
        return _ANSWERS.decode(body)
    except msgspec.MsgspecError as exc:
        raise FrameError(f"not an answer: {exc}") from exc


class FrameReader:
    """Cuts a stream of bytes into frames' bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises FrameError."""
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is more than {MAX_FRAME_BYTES}")
            begin = at + _LENGTH.size
            if len(self._buffer) - begin < length:
                break
            bodies.append(bytes(self._buffer[begin : begin + length]))
            at = begin + length
        del self._buffer[:at]
        return bodies
