"""What a health check sends, and what it takes for a sign of health. Pure."""

from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError

DEFAULT_EXPECTED = ((200, 201),)
"""Source: HttpHealthCheck.expected_statuses."""
USER_AGENT = b"user-agent: Envoy/HC"
"""Envoy's, so that applications which look for it need no change."""
MAX_RECEIVED_BYTES = 65536
"""Of a TCP answer, or of a body with `response_buffer_bytes` 0, looked at."""


StatusRanges = tuple[tuple[int, int], ...]
"""Half-open: (200, 300) is 200 to 299."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """One HTTP/1.1 request."""

    path: str
    method: bytes = b"GET"
    host: str = ""
    """The Host header, unless the endpoint has one of its own (`Endpoint.check_host`); empty: the cluster's name."""
    lines: tuple[bytes, ...] = (USER_AGENT,)
    """Further header lines, without CRLF."""
    expected: StatusRanges = DEFAULT_EXPECTED
    """Statuses of a healthy endpoint."""
    retriable: StatusRanges = ()
    """Statuses that count like no answer. `expected` goes first."""
    receive: tuple[bytes, ...] = ()
    """Must stand in the body, in this order."""
    response_buffer_bytes: int = 1024
    """So much of the body is looked at; 0: all, up to MAX_RECEIVED_BYTES."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or not self.path.isascii() or any(c <= " " or c == "\x7f" for c in self.path):
            raise ResilienceConfigError(f'health check: path is "{self.path}"; want /PATH in printable ASCII')
        if self.method == b"CONNECT":
            raise ResilienceConfigError("health check: method is CONNECT, which asks for no answer")
        for start, end in (*self.expected, *self.retriable):
            if not 100 <= start < end <= 600:
                raise ResilienceConfigError(
                    f"health check: statuses from {start} up to {end} (not included); want 100 <= start < end <= 600"
                )

    def request(self, host: str) -> bytes:
        """The request on the wire, for an endpoint whose Host header is `host`."""
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (self.method, self.path.encode(), host.encode())
        if self.method in (b"POST", b"PUT", b"PATCH"):
            head += b"content-length: 0\r\n"
        return head + b"".join([line + b"\r\n" for line in self.lines]) + b"\r\n"

    @property
    def looked_at_bytes(self) -> int:
        """How much of a body matters."""
        return (self.response_buffer_bytes or MAX_RECEIVED_BYTES) if self.receive else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """A connection, and perhaps bytes to send and to wait for."""

    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    """Must come, in this order; other bytes may stand between. Empty: being able to connect is enough."""

    @property
    def only_connects(self) -> bool:
        """Whether the check ends with the connection made."""
        return not self.receive


def is_in(ranges: StatusRanges, status: int) -> bool:
    """Whether one of the ranges holds `status`."""
    return any(start <= status < end for start, end in ranges)


def holds_in_order(data: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Whether each of `wanted` stands in `data`, one behind the other."""
    at = 0
    for one in wanted:
        found = data.find(one, at)
        if found < 0:
            return False
        at = found + len(one)
    return True
