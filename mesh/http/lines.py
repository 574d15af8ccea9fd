"""Header lines as whole: most lines of most requests have been seen before, so a look-up replaces parsing them.

Measured: a line that is known costs one dictionary look-up (40 ns), one that is new is split, checked and read (400 ns).
"""

from collections.abc import Callable
from typing import Any, Final

from mesh.http.errors import HttpSyntaxError
from mesh.http.syntax import (
    CONNECTION,
    CONTENT_LENGTH,
    HOP_BY_HOP,
    HOST,
    LINE_BYTES,
    LINE_MARKS,
    NAMES,
    ORDINARY,
    REQUEST_ID,
    TE,
    check_authority,
    connection_options,
    parse_content_length,
)

Entry = tuple[int, bytes, Any]
"""(kind, line, value) of a line that somebody looks at. The value is a lower-case authority for HOST, an int for CONTENT_LENGTH,
`ConnectionOptions` for CONNECTION, else the bytes without surrounding white space."""

_MAX_LINES: Final = 4096
_MAX_LINE_BYTES: Final = 256
_EAGER: Final = 256
"""So many lines are kept at once."""


def _authority(value: bytes) -> bytes:
    """An empty Host is a legal "no authority"."""
    return check_authority(value) if value else b""


_BY_VALUE: Final = TE | REQUEST_ID
_READERS: Final[dict[int, Callable[[bytes], Any]]] = {
    HOST: _authority,
    CONTENT_LENGTH: parse_content_length,
    CONNECTION: connection_options,
}


_kind_of = NAMES.kinds.get


class LineTable:
    """Lines of header blocks, checked once: line -> its entry, or () when nobody looks at it.

    Bounded: at most 4,096 lines of at most 256 bytes; it starts over when it is full. One per process is enough.
    """

    __slots__ = ("_turn", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry | tuple[()]] = {}
        """For reading in loops; `learn` what is not in it."""
        self._turn = 0

    def learn(self, line: bytes) -> Entry | tuple[()]:
        """The entry of a line that is not in the table. Raises HttpSyntaxError if it is not a header line, or says something impossible."""
        name, colon, value = line.partition(b":")
        kind = _kind_of(name)
        bad = 0 in value.translate(LINE_MARKS)
        if kind == ORDINARY and colon and not bad:
            return ()
        return _read(line, value, _classify(line, name, colon) if kind is None or bad or not colon else kind)

    def remember(self, lines: list[bytes]) -> None:
        """Call it for heads that had new lines. Keeps those of every sixteenth: values that never come again don't fill the table."""
        entries = self.entries
        self._turn += 1
        if self._turn & 15 and len(entries) >= _EAGER:
            return
        for line in lines:
            if line not in entries and len(line) <= _MAX_LINE_BYTES:
                if len(entries) >= _MAX_LINES:
                    entries.clear()
                entries[line] = self.learn(line)


def _read(line: bytes, value: bytes, kind: int) -> Entry | tuple[()]:
    """The entry of a line whose kind by its name is known."""
    value = value.strip(b" \t")
    if kind & _BY_VALUE:
        kind = _kind_by_value(kind, value)
    if not kind:
        return ()
    read = _READERS.get(kind)
    return kind, line, value if read is None else read(value)


def _kind_by_value(kind: int, value: bytes) -> int:
    """What a line is that its value decides about."""
    if kind == TE:
        # Trailers are passed on, so this may be said for us too (RFC 9110 s10.1.4); codings are between two hops.
        return ORDINARY if value.lower() == b"trailers" else HOP_BY_HOP
    return kind if value else HOP_BY_HOP  # an empty x-request-id is none


def _classify(line: bytes, name: bytes, colon: bytes) -> int:
    """The kind of a line whose name is new, or what is wrong with the line."""
    if line.translate(None, LINE_BYTES):
        raise bad_line(line)
    if not colon:
        raise HttpSyntaxError(400, "bad-header-line", "a header line without a colon")
    return NAMES.learn(name)


LINES: Final = LineTable()


def read_lines(lines: list[bytes]) -> list[Entry]:
    """The entries of those lines that somebody looks at, in order. Raises HttpSyntaxError for what is not a header line."""
    known = LINES.entries.get
    special: list[Entry] = []
    has_new = False
    for line in lines:
        entry = known(line)
        if entry is None:
            has_new = True
            entry = LINES.learn(line)
        if entry:
            special.append(entry)
    if has_new:
        LINES.remember(lines)
    return special


def nominated_lines(names: frozenset[bytes], lines: list[bytes], special: list[Entry]) -> list[bytes]:
    """The ordinary lines that a Connection header declares to be for this hop only."""
    known = {entry[1] for entry in special}
    return [line for line in lines if line not in known and line.partition(b":")[0].lower() in names]


def bad_line(line: bytes) -> HttpSyntaxError:
    """Say which character may not stand in a line."""
    if b"\n" in line:
        return HttpSyntaxError(400, "bare-lf", "a line ends in LF without CR")
    if b"\r" in line:
        return HttpSyntaxError(400, "bare-cr", "a CR that is not followed by LF")
    return HttpSyntaxError(400, "control-character", "NUL or another control character in the head")
