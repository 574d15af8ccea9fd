"""Sockets of the machine, asked for over a unix socket."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.net.errors import NetError
from mesh.net.loop import run as run_on_loop
from mesh.net.port_helper import PortHelper, PortRefusedError, listen_outside, udp_outside

pytestmark = pytest.mark.component


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Path]:
    path = folder / "ports.sock"
    helper = PortHelper(path)
    helper.start()
    try:
        yield path
    finally:
        helper.close()


def ask_raw(path: Path, packet: bytes) -> Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.send(packet)
        return json.loads(client.recv(4096))


def test_a_listening_socket_comes_through_and_works(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as path:
            assert path.stat().st_mode & 0o777 == 0o600
            with await listen_outside(path, "127.0.0.1", 0) as listener:
                port = listener.getsockname()[1]
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
                with pytest.raises(PortRefusedError, match=f"127.0.0.1:{port}: Address already in use"):
                    await listen_outside(path, "127.0.0.1", port)
        assert not path.exists()

    run_on_loop(run())


def test_a_udp_socket_comes_through_unbound(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as path:
            with await udp_outside(path) as opened:
                assert opened.type == socket.SOCK_DGRAM
                assert opened.getsockname() == ("0.0.0.0", 0)

    run_on_loop(run())


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "localhost", "::1", ""])
def test_only_loopback_addresses_are_opened(tmp_path: Path, address: str) -> None:
    async def run() -> None:
        async with serving(tmp_path) as path:
            with pytest.raises(PortRefusedError, match="not an IPv4 loopback address"):
                await listen_outside(path, address, 0)

    run_on_loop(run())


@pytest.mark.parametrize(
    "packet",
    [b"x", b"[]", b"{}", b'{"op":"exec"}', b'{"op":"listen_tcp","address":"127.0.0.1"}',
     b'{"op":"listen_tcp","address":"127.0.0.1","port":70000}', b'{"op":"listen_tcp","address":"127.0.0.1","port":"80"}', b"\xff" * 4096],
)  # fmt: skip
def test_malformed_requests_are_refused_and_the_helper_goes_on(tmp_path: Path, packet: bytes) -> None:
    async def run() -> None:
        async with serving(tmp_path) as path:
            answer = await asyncio.to_thread(ask_raw, path, packet)
            assert answer["ok"] is False
            assert answer["error"]
            (await udp_outside(path)).close()

    run_on_loop(run())


def test_a_very_long_path_works_and_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    (folder / "ports.sock").touch()

    async def run() -> None:
        async with serving(folder) as path:
            (await udp_outside(path)).close()

    run_on_loop(run())


def test_a_missing_helper_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="is `mesh up` still running"):
        run_on_loop(udp_outside(tmp_path / "ports.sock"))
