"""Stateful sessions: a client keeps the endpoint it was sent to. Values, and what its cookie or header says. Pure."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """Source: Envoy filters.http.stateful_session.v3 with cookie or header state. One of the two names is set."""

    cookie: str = ""
    header: str = ""
    """Lower case."""
    ttl_s: int = 0
    """COOKIE: how long the client stays with its endpoint; 0: for its session."""
    path: str = ""
    """COOKIE: only for requests under this path; also the cookie's Path. Empty: all."""
    attributes: tuple[tuple[str, str], ...] = ()
    """COOKIE: further attributes; an empty value is a bare attribute, such as HttpOnly."""

    def applies_to(self, path: bytes) -> bool:
        """Whether requests of `path` (without query) take part. Source: RFC 6265 s5.1.4."""
        mine = self.path.encode()
        if not mine or mine == b"/" or path == mine:
            return True
        return path.startswith(mine) and (mine.endswith(b"/") or path[len(mine) : len(mine) + 1] == b"/")


Address = tuple[str, int]


def cookie_value(address: Address, expires_s: int) -> bytes:
    """What a session cookie holds: Envoy's own form, base64 of a message {1: "address:port", 2: expiry}.

    `expires_s` is in Unix seconds; 0: when the client's session ends. Envoy and this proxy read each other's cookies.
    """
    text = _address_text(address)
    message = b"\x0a" + _varint(len(text)) + text
    if expires_s:
        message += b"\x10" + _varint(expires_s)
    return b64encode(message)


def parse_cookie_value(value: bytes, now_s: float) -> Address | None:
    """The endpoint that a session cookie names; None when it is expired or not one."""
    try:
        message = b64decode(value, validate=True)
        text, expires_s = _fields(message)
    except (Base64Error, ValueError, IndexError):
        return None
    return None if expires_s and now_s > expires_s else _parse_address(text)


def header_value(address: Address) -> bytes:
    """What a session header holds: base64 of "address:port"."""
    return b64encode(_address_text(address))


def parse_header_value(value: bytes) -> Address | None:
    """The endpoint that a session header names; None when it is not one."""
    try:
        return _parse_address(b64decode(value, validate=True))
    except (Base64Error, ValueError):
        return None


def _address_text(address: Address) -> bytes:
    host, port = address
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def _parse_address(text: bytes) -> Address | None:
    host, _, port = text.rpartition(b":")
    if not host or not port.isdigit() or len(port) > 5 or not text.isascii():
        return None
    return host.decode().removeprefix("[").removesuffix("]"), int(port)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(message: bytes) -> tuple[bytes, int]:
    """(address, expiry) of the message. Raises ValueError or IndexError when it is not one."""
    text, expires_s, at = b"", 0, 0
    while at < len(message):
        tag = message[at]
        number, at = _read_varint(message, at + 1)
        if tag == 0x0A:
            text, at = message[at : at + number], at + number
        elif tag == 0x10:
            expires_s = number
        else:
            raise ValueError("an unknown field")
    if at != len(message):
        raise ValueError("it is cut off")
    return text, expires_s
