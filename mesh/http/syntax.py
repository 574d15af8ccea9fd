"""Characters, names and header lines: what every head is checked for before anything in it is believed."""

from dataclasses import dataclass
from typing import TypeVar

from mesh.http.errors import HttpSyntaxError

V = TypeVar("V")

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Source: RFC 9110 s5.6.2."""
LINE_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
"""Everything that may occur in a line of a head: no control characters."""
LINE_MARKS = bytes(byte if byte in LINE_BYTES else 0 for byte in range(256))
"""For `0 in text.translate(LINE_MARKS)`: whether a byte may not occur in a line. Measured: a quarter of the cost of deleting what may."""
TARGET_BYTES = bytes(set(range(0x21, 0x7F)) - {ord("#")})
"""Printable ASCII without the fragment's sign. Source: RFC 9112 s3.2; quotes, brackets and the like pass, as in Envoy."""
TARGET_MARKS = bytes(byte if byte in TARGET_BYTES else 0 for byte in range(256))
HOST_BYTES = b"-._~!$&'()*+,;=:[]%0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Source: RFC 3986 s3.2.2 with the port; no user information."""

_MAX_NAMES = 4096
_MAX_REMEMBERED = 1024

ORDINARY = 0
HOST = 1 << 0
CONTENT_LENGTH = 1 << 1
TRANSFER_ENCODING = 1 << 2
CONNECTION = 1 << 3
HOP_BY_HOP = 1 << 4
EXPECT = 1 << 5
UPGRADE = 1 << 6
REQUEST_ID = 1 << 7
TRACEPARENT = 1 << 8
TRACESTATE = 1 << 9
FORWARDED_FOR = 1 << 10
FORWARDED_PROTO = 1 << 11
IDEMPOTENCY_KEY = 1 << 12
IDENTITY = 1 << 13
DATE = 1 << 14
SERVER = 1 << 15
ATTEMPT_COUNT = 1 << 16
PROXY_HINT = 1 << 17
TE = 1 << 18
MAX_FORWARDS = 1 << 19
"""Kinds of header lines, as bits: the kinds of a whole head are one number."""

_SPECIAL = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": HOP_BY_HOP,
    b"proxy-connection": HOP_BY_HOP,
    b"te": TE,
    b"max-forwards": MAX_FORWARDS,
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
    b"x-envoy-force-trace": IDENTITY,
    b"x-envoy-internal": IDENTITY,
    b"x-envoy-ip-tags": IDENTITY,
    b"x-envoy-retriable-header-names": IDENTITY,
    b"x-envoy-upstream-alt-stat-name": IDENTITY,
    b"x-envoy-upstream-rq-timeout-alt-response": IDENTITY,
    b"date": DATE,
    b"server": SERVER,
    b"x-envoy-attempt-count": ATTEMPT_COUNT,
    b"x-envoy-upstream-service-time": HOP_BY_HOP,
    b"x-envoy-expected-rq-timeout-ms": PROXY_HINT,
    b"x-envoy-hedge-on-per-try-timeout": PROXY_HINT,
    b"x-envoy-max-retries": PROXY_HINT,
    b"x-envoy-retriable-status-codes": PROXY_HINT,
    b"x-envoy-retry-grpc-on": PROXY_HINT,
    b"x-envoy-retry-on": PROXY_HINT,
    b"x-envoy-upstream-rq-per-try-timeout-ms": PROXY_HINT,
    b"x-envoy-upstream-rq-timeout-ms": PROXY_HINT,
}
"""Headers that somebody looks at. IDENTITY: only a mesh proxy may say them, so what a client says is dropped; so are the orders to a
proxy that Envoy takes from its own clients only (internal addresses), of which there are none here. PROXY_HINT: about retries and
timeouts; read by sidecar.request_hints and never sent on as they are.

Proxy-Authenticate and Proxy-Authorization travel on: nobody here asks for them, so they are for a proxy further on (RFC 9110 s11.7.2).
"""

_NEVER_NOMINATED = frozenset(
    {
        b"authorization", b"cache-control", b"content-encoding", b"content-language", b"content-length", b"content-location",
        b"content-range", b"content-type", b"cookie", b"date", b"etag", b"expires", b"host", b"idempotency-key", b"location",
        b"set-cookie", b"traceparent", b"tracestate", b"transfer-encoding", b"vary", b"x-forwarded-for", b"x-forwarded-host",
        b"x-forwarded-proto", b"x-request-id",
    }
)  # fmt: skip
"""Fields for every recipient. RFC 9110 s7.6.1 forbids to name them in Connection; who does it wants a proxy to lose them.
DEVIATION: Envoy refuses the request when some of them are named, and removes others."""

PASSING = IDEMPOTENCY_KEY | DATE | SERVER | ATTEMPT_COUNT | MAX_FORWARDS
"""Looked at, and sent on like any other."""


def _is_token(name: bytes) -> bool:
    return bool(name) and not name.translate(None, TOKEN_BYTES)


class NameTable:
    """Header names as they were spelled, checked once: spelling -> kind.

    Bounded: it starts over when 4096 spellings have been seen. One per process is enough; it holds no values.
    """

    __slots__ = ("kinds",)

    def __init__(self) -> None:
        self.kinds: dict[bytes, int] = {}
        """For reading in loops; `learn` what is not in it."""

    def learn(self, name: bytes) -> int:
        """The kind of a name that is not in `kinds` yet. Raises HttpSyntaxError if it is not a token."""
        if not _is_token(name):
            raise bad_name(name)
        if len(self.kinds) >= _MAX_NAMES:
            self.kinds.clear()
        kind = self.kinds[name] = _SPECIAL.get(name.lower(), ORDINARY)
        return kind


NAMES = NameTable()


def bad_name(name: bytes) -> HttpSyntaxError:
    """Say what is wrong with a header line whose name is not a token."""
    if name[:1] in (b" ", b"\t"):
        return HttpSyntaxError(400, "obs-fold", "a header line starts with white space (obsolete line folding)")
    if name[-1:] in (b" ", b"\t"):
        return HttpSyntaxError(400, "space-before-colon", "white space between a header's name and its colon")
    return HttpSyntaxError(400, "bad-header-name", "a header's name is empty or holds a character that is not allowed")


def parse_content_length(value: bytes) -> int:
    """The length, >= 0. Digits only: no sign, no list, at most 18 digits. Source: RFC 9112 s6.3."""
    if not value.isdigit() or len(value) > 18:
        raise HttpSyntaxError(400, "bad-content-length", "Content-Length is not one plain number")
    return int(value)


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What a Connection header says."""

    closes: bool
    keeps_alive: bool
    upgrades: bool
    nominated: frozenset[bytes]
    """Other headers, lower case, that are for this hop only."""

    def __or__(self, other: "ConnectionOptions") -> "ConnectionOptions":
        """Both of two Connection headers."""
        return ConnectionOptions(
            self.closes or other.closes,
            self.keeps_alive or other.keeps_alive,
            self.upgrades or other.upgrades,
            self.nominated | other.nominated,
        )


def connection_options(value: bytes) -> ConnectionOptions:
    """Read a Connection header's value. Remembers the few values that there are."""
    known = _CONNECTIONS.get(value)
    if known is None:
        tokens = frozenset(token for part in value.split(b",") if (token := part.strip(b" \t").lower()))
        known = ConnectionOptions(
            b"close" in tokens,
            b"keep-alive" in tokens,
            b"upgrade" in tokens,
            tokens - {b"close", b"keep-alive", b"upgrade", b"te"} - _NEVER_NOMINATED,
        )
        if len(value) <= 64:
            remember(_CONNECTIONS, value, known)
    return known


def check_authority(value: bytes) -> bytes:
    """A Host in lower case. Remembers those it has checked. Raises HttpSyntaxError."""
    known = AUTHORITIES.get(value)
    if known is None:
        if not value or value.translate(None, HOST_BYTES):
            raise HttpSyntaxError(400, "bad-host", "the host is empty or holds a character that is not allowed")
        known = value.lower()
        if len(value) <= 256:
            remember(AUTHORITIES, value, known)
    return known


def remember(known: dict[bytes, V], key: bytes, value: V) -> None:
    """Put into a cache that starts over when it is full."""
    if len(known) >= _MAX_REMEMBERED:
        known.clear()
    known[key] = value


def without(lines: list[bytes], nominated: frozenset[bytes]) -> list[bytes]:
    """Header lines but for those that Connection names."""
    return [line for line in lines if line.partition(b":")[0].lower() not in nominated]


AUTHORITIES: dict[bytes, bytes] = {}
"""As spelled -> lower case; only what `check_authority` has let pass."""
_CONNECTIONS: dict[bytes, ConnectionOptions] = {}
