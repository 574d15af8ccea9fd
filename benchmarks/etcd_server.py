"""A real etcd of one member for comparison, and the one call of it that is measured."""

import asyncio
import importlib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

_START_TIMEOUT_S = 20.0


def etcd_version() -> str:
    """The version that etcd says it has."""
    return subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _messages() -> Any:
    """The message classes of etcd_kv.proto, compiled on the spot."""
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    source = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        code = protoc.main(["protoc", f"-I{source}", f"--python_out={folder}", str(source / "etcd_kv.proto")])
        if code:
            raise RuntimeError(f"protoc could not compile etcd_kv.proto (exit code {code})")
        sys.path.insert(0, folder)
        try:
            return importlib.import_module("etcd_kv_pb2")
        finally:
            sys.path.remove(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdServer:
    """Starts etcd with its data in `folder`, as it comes: every transaction is on disk before it is answered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._messages = _messages()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._txn: Any = None

    async def __aenter__(self) -> "EtcdServer":
        client, peer = f"http://127.0.0.1:{_free_port()}", f"http://127.0.0.1:{_free_port()}"
        command = ["etcd", "--data-dir", str(self._folder), "--listen-client-urls", client]
        command += [
            "--advertise-client-urls",
            client,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
        ]
        command += ["--initial-cluster", f"default={peer}", "--log-level", "error", "--logger", "zap"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._channel = grpc.aio.insecure_channel(client.removeprefix("http://"))
        self._txn = self._channel.unary_unary(
            "/etcdserverpb.KV/Txn",
            request_serializer=self._messages.TxnRequest.SerializeToString,
            response_deserializer=self._messages.TxnResponse.FromString,
        )
        async with asyncio.timeout(_START_TIMEOUT_S):
            await self._channel.channel_ready()
            await self._txn(self._messages.TxnRequest(), wait_for_ready=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)

    async def cas_put(self, key: bytes, revision: int, value: bytes) -> int:
        """Put if the key is at `revision`; returns the new one. Raises RuntimeError when it is not."""
        messages = self._messages
        request = messages.TxnRequest(
            compare=[messages.Compare(target=2, key=key, mod_revision=revision)],
            success=[messages.RequestOp(request_put=messages.PutRequest(key=key, value=value))],
        )
        response = await self._txn(request)
        if not response.succeeded:
            raise RuntimeError(f"etcd lost revision {revision} of {key!r}")
        return int(response.header.revision)
