"""Characters, names and header lines: what every head is checked for before anything in it is believed."""

from mesh.http.errors import HttpSyntaxError

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Source: RFC 9110 s5.6.2."""
HEAD_BYTES = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
"""Everything that may occur in a head: no control characters. CR and LF are counted apart."""
HOST_BYTES = b"-._~!$&'()*+,;=:[]%0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Source: RFC 3986 s3.2.2 with the port; no user information."""

_MAX_NAMES = 4096

ORDINARY = 0
HOST = 1
CONTENT_LENGTH = 2
TRANSFER_ENCODING = 3
CONNECTION = 4
HOP_BY_HOP = 5
EXPECT = 6
UPGRADE = 7
REQUEST_ID = 8
TRACEPARENT = 9
TRACESTATE = 10
FORWARDED_FOR = 11
FORWARDED_PROTO = 12
IDEMPOTENCY_KEY = 13
IDENTITY = 14
DATE = 15
SERVER = 16
ATTEMPT_COUNT = 17

_SPECIAL = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"proxy-authenticate": HOP_BY_HOP,
    b"proxy-authorization": HOP_BY_HOP,
    b"te": HOP_BY_HOP,
    b"http2-settings": HOP_BY_HOP,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"idempotency-key": IDEMPOTENCY_KEY,
    b"x-forwarded-client-cert": IDENTITY,
    b"x-envoy-peer-metadata": IDENTITY,
    b"x-envoy-peer-metadata-id": IDENTITY,
    b"date": DATE,
    b"server": SERVER,
    b"x-envoy-attempt-count": ATTEMPT_COUNT,
}
"""Headers that somebody looks at. IDENTITY: only a mesh proxy may say them, so what a client says is dropped."""


def _is_token(name: bytes) -> bool:
    return bool(name) and not name.translate(None, TOKEN_BYTES)


class NameTable:
    """Header names as they were spelled, checked once: spelling -> (lower-case name, kind).

    Bounded: it starts over when 4096 spellings have been seen. One per process is enough; it holds no values.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, int]] = {}

    def lookup(self, name: bytes) -> tuple[bytes, int]:
        """The name in lower case and its kind. Raises HttpSyntaxError if it is not a token."""
        known = self._known.get(name)
        if known is None:
            known = self._learn(name)
        return known

    def _learn(self, name: bytes) -> tuple[bytes, int]:
        if not _is_token(name):
            raise bad_name(name)
        lower = name.lower()
        if len(self._known) >= _MAX_NAMES:
            self._known.clear()
        known = self._known[name] = (lower, _SPECIAL.get(lower, ORDINARY))
        return known


NAMES = NameTable()


def bad_name(name: bytes) -> HttpSyntaxError:
    """Say what is wrong with a header line whose name is not a token."""
    if name[:1] in (b" ", b"\t"):
        return HttpSyntaxError(400, "obs-fold", "a header line starts with white space (obsolete line folding)")
    if name[-1:] in (b" ", b"\t"):
        return HttpSyntaxError(400, "space-before-colon", "white space between a header's name and its colon")
    return HttpSyntaxError(400, "bad-header-name", "a header's name is empty or holds a character that is not allowed")


def split_head(block: bytes) -> list[bytes]:
    """Split a head that ends in an empty line into its lines, without CRLF.

    Raises HttpSyntaxError for a bare LF or CR, for NUL and other control characters.
    """
    lines = block[:-4].split(b"\r\n")
    breaks = len(lines) + 1
    if block.count(b"\n") != breaks:
        raise HttpSyntaxError(400, "bare-lf", "a line ends in LF without CR")
    if block.count(b"\r") != breaks:
        raise HttpSyntaxError(400, "bare-cr", "a CR that is not followed by LF")
    if block.translate(None, HEAD_BYTES):
        raise HttpSyntaxError(400, "control-character", "NUL or another control character in the head")
    return lines


def parse_content_length(value: bytes) -> int:
    """The length, >= 0. Digits only: no sign, no list, at most 18 digits. Source: RFC 9112 s6.3."""
    if not value.isdigit() or len(value) > 18:
        raise HttpSyntaxError(400, "bad-content-length", "Content-Length is not one plain number")
    return int(value)


def connection_tokens(value: bytes) -> list[bytes]:
    """The options of a Connection header, lower case."""
    return [token for part in value.split(b",") if (token := part.strip(b" \t").lower())]
