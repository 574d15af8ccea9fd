"""Body readers: where a message's body ends, and its payload without the framing.

A reader is fed bytes from a position and returns the payload pieces and the position after what it took. Bytes after
the body are not touched: they are the next message.
"""

from typing import Protocol

from mesh.http.errors import HttpSyntaxError
from mesh.http.limits import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES
from mesh.http.syntax import LINE_BYTES, NAMES, ORDINARY

_HEX = b"0123456789abcdefABCDEF"
_NEVER_TRAILERS = frozenset(
    {b"authorization", b"cookie", b"set-cookie", b"content-type", b"content-encoding", b"trailer"}
)


class BodyReader(Protocol):
    """Takes a body off a stream of bytes."""

    done: bool
    """Whether the body has ended."""
    trailers: list[bytes]
    """Trailer lines that may be forwarded; complete when `done`."""

    def feed(self, data: bytes, at: int = 0) -> tuple[list[bytes], int]:
        """Take what belongs to the body from `data[at:]`. Returns payload pieces and where the rest begins."""
        ...


class LengthReader:
    """A body of a known length, > 0."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.trailers: list[bytes] = []

    def feed(self, data: bytes, at: int = 0) -> tuple[list[bytes], int]:
        available = len(data) - at
        if available < self._left:
            self._left -= available
            return ([data[at:] if at else data] if available else []), len(data)
        end = at + self._left
        piece = data[at:end]
        self._left = 0
        self.done = True
        return ([piece] if piece else []), end


class UntilCloseReader:
    """A body that ends with the connection; its owner sets `done` at end of file."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: list[bytes] = []

    def feed(self, data: bytes, at: int = 0) -> tuple[list[bytes], int]:
        piece = data[at:] if at else data
        return ([piece] if piece else []), len(data)


class ChunkedReader:
    """A chunked body. Chunk extensions are checked and dropped. Source: RFC 9112 s7.1.

    Holds at most one partial line (256 bytes, 8 KB in the trailers), never payload.
    """

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "done", "trailers")

    _SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0
        self.done = False
        self.trailers: list[bytes] = []

    def feed(self, data: bytes, at: int = 0) -> tuple[list[bytes], int]:
        """Raises HttpSyntaxError for framing that two parsers could read differently."""
        pieces: list[bytes] = []
        end = len(data)
        while at < end and not self.done:
            if self._state == self._DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if self._left == 0:
                    self._state = self._DATA_END
                continue
            line, at = self._take_line(data, at)
            if line is None:
                break
            self._on_line(line)
        return pieces, at

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """A line without CRLF, or None when it is not complete yet (what there is of it is kept)."""
        limit = MAX_TRAILER_BYTES if self._state == self._TRAILER else MAX_CHUNK_LINE_BYTES
        found = data.find(b"\n", at, at + limit + 2)
        if found < 0:
            self._line += data[at : at + limit + 2]
            if len(self._line) > limit + 1:
                raise HttpSyntaxError(
                    400, "chunk-line-too-long", f"a chunk or trailer line is longer than {limit} bytes"
                )
            # A CR may only be the last byte so far, else it is a bare CR.
            if b"\r" in self._line[:-1]:
                raise HttpSyntaxError(400, "bare-cr", "a CR that is not followed by LF in a chunked body")
            return None, len(data)
        line = self._line + data[at:found] if self._line else data[at:found]
        self._line = b""
        if line[-1:] != b"\r":
            raise HttpSyntaxError(400, "bare-lf", "a line of a chunked body ends in LF without CR")
        line = line[:-1]
        if b"\r" in line or len(line) > limit:
            raise HttpSyntaxError(400, "bad-chunk", "a line of a chunked body is too long or holds a bare CR")
        return line, found + 1

    def _on_line(self, line: bytes) -> None:
        if self._state == self._SIZE:
            self._left = _chunk_size(line)
            self._state = self._DATA if self._left else self._TRAILER
        elif self._state == self._DATA_END:
            if line:
                raise HttpSyntaxError(400, "bad-chunk", "a chunk is longer than its size says")
            self._state = self._SIZE
        elif line:
            self._on_trailer(line)
        else:
            self._state = self._DONE
            self.done = True

    def _on_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise HttpSyntaxError(431, "trailers-too-large", f"trailers are larger than {MAX_TRAILER_BYTES} bytes")
        name, colon, _ = line.partition(b":")
        if not colon or line.translate(None, LINE_BYTES):
            raise HttpSyntaxError(400, "bad-trailer", "a trailer line is not a header line")
        kind = NAMES.kinds.get(name)
        if kind is None:
            kind = NAMES.learn(name)
        # RFC 9110 s6.5.1: nothing that frames, routes or authenticates may arrive in a trailer.
        if kind == ORDINARY and name.lower() not in _NEVER_TRAILERS:
            self.trailers.append(line)


def _chunk_size(line: bytes) -> int:
    digits, _, extension = line.partition(b";")
    digits = digits.rstrip(b" \t")
    if not digits or len(digits) > 15 or digits.translate(None, _HEX):
        raise HttpSyntaxError(400, "bad-chunk", "a chunk's size is not a hexadecimal number")
    if extension and extension.translate(None, LINE_BYTES):
        raise HttpSyntaxError(400, "bad-chunk", "a control character in a chunk extension")
    return int(digits, 16)


def chunk(pieces: list[bytes]) -> bytes:
    """Frame payload pieces as one chunk; empty for no payload."""
    payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n"
