"""The port helper: sockets of the machine's own network namespace for processes inside the cluster's.

A socket keeps the namespace it was created in, and unix sockets cross network namespaces, so a process outside opens the
port and hands the descriptor in. One request per packet (SOCK_SEQPACKET), JSON; see docs/contracts.md, "Port helper".
Only loopback addresses are opened, and only callers with our own user id are served.
"""

import array
import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mesh.net.errors import NetError

logger = logging.getLogger(__name__)

_MAX_PACKET_BYTES = 4096
_MAX_CLIENTS = 64
_BACKLOG = 1024
_TIMEOUT_S = 5.0


class PortRefusedError(NetError):
    """The port was not opened; the message has the helper's reason."""


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits the 107 characters of a unix socket's address."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def open_machine_socket(request: Mapping[str, Any]) -> socket.socket:
    """What one request asks for. Raises PortRefusedError for a malformed or forbidden one, and when the port is taken."""
    match request:
        case {"op": "listen_tcp", "address": str(address), "port": int(port)} if 0 <= port <= 65535:
            return _listen(address, port)
        case {"op": "udp_upstream"}:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        case _:
            raise PortRefusedError("want op listen_tcp with address and port (0-65535), or op udp_upstream")


def _listen(address: str, port: int) -> socket.socket:
    try:
        is_loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise PortRefusedError(f"{address!r} is not an IPv4 loopback address; only those are opened")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PortRefusedError(f"{address}:{port}: {error.strerror}") from error
    return listener


class PortHelper:
    """The serving side, on the running loop. At most 64 clients at once; more are turned away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    def start(self) -> None:
        """Serve at the path (mode 0600); a stale socket file there is replaced. Raises NetError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            with _short_path(self._path) as name:
                listener.bind(name)
            self._path.chmod(0o600)
            listener.listen(_MAX_CLIENTS)
        except OSError as error:
            listener.close()
            raise NetError(f"port helper socket {self._path}: {error.strerror}") from error
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop serving and take the socket file away. Sockets handed out stay open."""
        loop = asyncio.get_running_loop()
        for client in tuple(self._clients):
            self._drop(client)
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) >= _MAX_CLIENTS or _peer_uid(client) != os.geteuid():
            client.close()
            return
        client.setblocking(False)
        self._clients.add(client)
        asyncio.get_running_loop().add_reader(client, self._answer, client)

    def _answer(self, client: socket.socket) -> None:
        try:
            packet = client.recv(_MAX_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop(client)
            return
        try:
            self._reply(client, packet)
        except OSError:
            self._drop(client)

    def _reply(self, client: socket.socket, packet: bytes) -> None:
        try:
            request = json.loads(packet)
            with open_machine_socket(request if isinstance(request, dict) else {}) as opened:
                rights = array.array("i", [opened.fileno()])
                client.sendmsg([b'{"ok":true}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (ValueError, PortRefusedError) as error:
            client.send(json.dumps({"ok": False, "error": str(error)}).encode())

    def _drop(self, client: socket.socket) -> None:
        self._clients.discard(client)
        asyncio.get_running_loop().remove_reader(client)
        client.close()


def _peer_uid(client: socket.socket) -> int:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


async def listen_outside(path: Path, address: str, port: int) -> socket.socket:
    """A listening TCP socket on `address`:`port` of the machine. Non-blocking. Raises PortRefusedError, NetError."""
    return await asyncio.to_thread(_ask, path, {"op": "listen_tcp", "address": address, "port": port})


async def udp_outside(path: Path) -> socket.socket:
    """An unbound UDP socket in the machine's namespace. Non-blocking. Raises PortRefusedError, NetError."""
    return await asyncio.to_thread(_ask, path, {"op": "udp_upstream"})


def _ask(path: Path, request: Mapping[str, Any]) -> socket.socket:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_TIMEOUT_S)
            with _short_path(path) as name:
                connection.connect(name)
            connection.send(json.dumps(request).encode())
            packet, fds, _, _ = socket.recv_fds(connection, _MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise NetError(f"port helper {path}: {error.strerror or error}; is `mesh up` still running?") from error
    return _received(packet, fds)


def _received(packet: bytes, fds: list[int]) -> socket.socket:
    try:
        answer = json.loads(packet or b"null")
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.get("ok") is True and len(fds) == 1:
        received = socket.socket(fileno=fds[0])
        received.setblocking(False)
        return received
    for fd in fds:
        os.close(fd)
    reason = answer.get("error") if isinstance(answer, dict) else None
    raise PortRefusedError(str(reason or "the port helper ended without an answer"))
