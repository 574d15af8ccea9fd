"""What is sent, and what was seen of it on both ends."""

from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nDate: d\r\nServer: s\r\nX-Up: 1\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Bytes of one client connection."""

    name: str
    send: tuple[bytes, ...]
    """Pieces; before each but the first, the client waits until something comes back, or for a moment."""
    listener: str = "plain"
    """Which listener of the bootstrap file: see `bootstrap.py`."""
    responses: int = 1
    """How many final responses to wait for before the connection is probed."""
    answer: bytes = OK
    """What the upstream answers each request with, byte for byte."""
    answers_early: bool = False
    """The upstream answers a request's head and doesn't wait for its body."""
    closes: bool = False
    """The upstream closes its connection after the answer."""
    half_closes: bool = False
    """The client says that it will send no more, and reads on."""
    probe: bool = True
    """Afterwards a plain request shows whether the connection still works."""


@dataclass(slots=True)
class Seen:
    """A request as the upstream got it."""

    line: str
    headers: list[str] = field(default_factory=list)
    """`name: value` with the name in lower case, in order."""
    body: bytes = b""
    is_whole: bool = False
    chunked: bool = False


@dataclass(slots=True)
class Observed:
    """What one proxy made of a case."""

    answers: list[str] = field(default_factory=list)
    """Every response: its status; and for an upstream's, framing, body and header lines."""
    connection: str = ""
    """`kept`, `closed`, or `silent`: neither an answer to the probe nor an end."""
    seen: list[Seen] = field(default_factory=list)


def case(name: str, *send: bytes, **changes: object) -> Case:
    """A case, shorter to write."""
    return Case(name=name, send=send, **changes)  # type: ignore[arg-type]


def get(*lines: bytes, target: bytes = b"/", method: bytes = b"GET", host: bytes = b"a.example") -> bytes:
    """A request without a body, with further header lines."""
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: " + host, *lines]) + b"\r\n\r\n"


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    """A POST with exactly these framing lines and body."""
    return get(*lines, target=target, method=b"POST") + body
