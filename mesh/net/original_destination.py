"""Where a redirected connection was really going (netfilter REDIRECT)."""

import socket
import struct
from typing import Protocol

SO_ORIGINAL_DST = 80
"""Source: linux/netfilter_ipv4.h; the same number for IPv6 (IP6T_SO_ORIGINAL_DST)."""


class SocketOptions(Protocol):
    """The part of a socket that is needed; uvloop's transports offer it too."""

    @property
    def family(self) -> int: ...
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def original_destination(sock: SocketOptions) -> tuple[str, int] | None:
    """The address and port the client meant; None when the connection was not redirected (or there is no netfilter)."""
    try:
        if sock.family == socket.AF_INET6:
            raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            port, packed = struct.unpack_from("!2xH4x16s", raw)
            return socket.inet_ntop(socket.AF_INET6, packed), port
        raw = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
    except OSError:
        return None
    port, packed = struct.unpack_from("!2xH4s", raw)
    return socket.inet_ntoa(packed), port
