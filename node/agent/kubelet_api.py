"""The kubelet's HTTPS API: logs, a proxy into pods, health. For the API server only. docs/contracts.md names the paths."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web

from mesh.api.pod import Pod
from mesh.client.config import ClientConfig
from mesh.net import linux
from node.agent.state import PodState
from node.agent.worker import PodWorker
from node.config import NodeConfig
from node.errors import LogError, NodeConfigError
from node.runtime.logs import LogOptions, log_parts, read_log

logger = logging.getLogger(__name__)

_GROUP = "system:masters"
_CLIENT = "kube-apiserver-kubelet-client"
_MAX_PROXY_BODY = 8 << 20
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_SHUTDOWN_S = 1.0

FindWorker = Callable[[str, str], PodWorker | None]


class KubeletApi:
    """One node's server. Every path but /healthz needs a client certificate of the API server or a cluster admin."""

    def __init__(
        self,
        config: NodeConfig,
        client_config: ClientConfig,
        find_worker: FindWorker,
        all_workers: Callable[[], Sequence[PodWorker]],
    ) -> None:
        self._config = config
        self._client_config = client_config
        self._find_worker = find_worker
        self._all_workers = all_workers
        self.port = config.kubelet_port
        """The port it listens on, once `run` has bound it."""
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled. Raises NodeConfigError when the certificate or address is unusable."""
        app = web.Application(client_max_size=_MAX_PROXY_BODY, middlewares=[self._authorize])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_route("*", "/proxy/{namespace}/{pod}/{port:[0-9]+}{path:(/.*)?}", self._proxy)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._config.address, self._config.kubelet_port, ssl_context=self._context())
            await site.start()
            self.port = int(runner.addresses[0][1])
            self.listening.set()
            await asyncio.Event().wait()
        except OSError as exc:
            raise NodeConfigError(
                f"kubelet API on {self._config.address}:{self._config.kubelet_port}: {exc.strerror}"
            ) from exc
        finally:
            await runner.cleanup()

    def _context(self) -> ssl.SSLContext:
        """The node's client certificate is its server certificate too: it names the node and its address."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        client = self._client_config
        try:
            context.load_verify_locations(self._config.ca_file)
            if client.cert_file:
                context.load_cert_chain(client.cert_file, client.key_file or None)
            else:
                _load_bytes(context, client.cert_data, client.key_data)
        except (OSError, ssl.SSLError) as exc:
            raise NodeConfigError(f"the node's certificate in {self._config.kubeconfig} is unusable: {exc}") from exc
        return context

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != "/healthz" and not _is_allowed(request):
            return web.Response(status=403, text="Forbidden: a client certificate of the API server is needed\n")
        response: web.StreamResponse = await handler(request)
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _pods(self, _: web.Request) -> web.Response:
        items = [worker.state.pod for worker in self._all_workers()]
        return web.json_response({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})

    # Logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker = self._find_worker(request.match_info["namespace"], request.match_info["pod"])
        if worker is None:
            return web.Response(status=404, text="pod not found on this node\n")
        name = request.match_info["container"]
        if name not in _container_names(worker.pod):
            return web.Response(status=404, text=f"container {name} is not in pod {worker.pod.metadata.name}\n")
        try:
            options = log_options(request.query)
            attempt = _asked_attempt(worker.state, name, is_previous=_is_true(request.query.get("previous")))
            path = self._config.state_dir / "pods" / worker.pod.metadata.uid / "logs" / name / f"{attempt}.log"
            log_parts(path)
        except LogError as exc:
            return web.Response(status=400, text=f"{exc}\n")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        def is_running() -> bool:
            facts = worker.state.facts(name)
            return facts.attempt == attempt and facts.running is not None

        # A client that goes away ends this by cancellation or by a connection error on write.
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(read_log(path, options, is_running)) as pieces:
                async for piece in pieces:
                    await response.write(piece)
            await response.write_eof()
        return response

    # Into pods

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        """Relay to 127.0.0.1:PORT inside the pod. Bodies are bounded towards the pod and streamed back."""
        worker = self._find_worker(request.match_info["namespace"], request.match_info["pod"])
        if worker is None or not worker.state.has_sandbox:
            return web.Response(status=404, text="pod not found on this node or not set up\n")
        netns_path = worker.state.netns_path

        def socket_factory(_: object) -> socket.socket:
            return socket_inside(netns_path)

        connector = aiohttp.TCPConnector(socket_factory=socket_factory, force_close=True)
        path = request.match_info["path"] or "/"
        url = f"http://127.0.0.1:{request.match_info['port']}{path}"
        query = f"?{request.query_string}" if request.query_string else ""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP and k.lower() != "host"}
        body = await request.read()
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            try:
                async with session.request(
                    request.method, f"{url}{query}", headers=headers, data=body or None, allow_redirects=False
                ) as answer:
                    return await _relay(request, answer)
            except (aiohttp.ClientConnectionError, OSError) as exc:
                return web.Response(status=502, text=f"port {request.match_info['port']} in the pod: {exc}\n")


async def _relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def socket_inside(netns_path: str) -> socket.socket:
    """A TCP socket that belongs to another network namespace. Never awaits, so the loop's thread may do it. OSError."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.setns(there, linux.CLONE_NEWNET)
            try:
                made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            finally:
                linux.setns(home, linux.CLONE_NEWNET)
        finally:
            os.close(there)
    finally:
        os.close(home)
    made.setblocking(False)
    return made


def _load_bytes(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """The ssl module reads certificates from files only: a memory file keeps the key off the disk."""
    fd = os.memfd_create("node-certificate")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(cert.rstrip(b"\n") + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _is_allowed(request: web.Request) -> bool:
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return False
    subject = [pair for group in certificate.get("subject", ()) for pair in group]
    return ("organizationName", _GROUP) in subject or ("commonName", _CLIENT) in subject


def _container_names(pod: Pod) -> set[str]:
    return {container.name for container in (*pod.spec.containers, *pod.spec.init_containers)}


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "t", "true")


def _asked_attempt(state: PodState, name: str, *, is_previous: bool) -> int:
    """Which run's log is asked for. Raises LogError."""
    facts = state.facts(name)
    attempt = facts.attempt - 1 if is_previous else facts.attempt
    if facts.attempt == 0:
        reason = facts.trouble.reason if facts.trouble else "ContainerCreating"
        raise LogError(f'container "{name}" is waiting to start: {reason}')
    if attempt < 1:
        raise LogError(f'previous terminated container "{name}" not found')
    return attempt


def log_options(query: Any, now: datetime | None = None) -> LogOptions:
    """The options of a log request. Raises LogError with what is wrong."""
    since = str(query.get("sinceTime") or "")
    if since:
        try:
            since = _stamp(datetime.fromisoformat(since))
        except ValueError as exc:
            raise LogError(f"sinceTime {since!r} is not an RFC 3339 time") from exc
    seconds = _number(query, "sinceSeconds")
    if seconds is not None:
        since = _stamp((now or datetime.now(UTC)) - timedelta(seconds=seconds))
    return LogOptions(
        tail_lines=_number(query, "tailLines"),
        since=since,
        timestamps=_is_true(query.get("timestamps")),
        follow=_is_true(query.get("follow")),
        limit_bytes=_number(query, "limitBytes"),
    )


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _number(query: Any, name: str) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    if not str(text).isdigit() or len(str(text)) > 12:
        raise LogError(f"{name} must be a whole number, not {text!r}")
    return int(text)
