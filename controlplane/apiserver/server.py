"""Putting the API server together, listening, and closing.

async with running(config, store, admission) as server:     # listens until the block ends
    server.addresses
"""

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from controlplane.apiserver.admission import Admission
from controlplane.apiserver.admission_namespaces import NamespaceLifecycle
from controlplane.apiserver.admission_service_accounts import ServiceAccountAdmission
from controlplane.apiserver.allocation import ServiceAllocation
from controlplane.apiserver.authentication import Authenticator
from controlplane.apiserver.authorization import FixedAuthorizer
from controlplane.apiserver.backends import Backends
from controlplane.apiserver.bootstrap import Bootstrap
from controlplane.apiserver.compaction import compact_regularly
from controlplane.apiserver.config import ApiServerConfig
from controlplane.apiserver.core import Core
from controlplane.apiserver.crds import CustomKindAdmission, CustomKinds, clean_up
from controlplane.apiserver.documents import Documents
from controlplane.apiserver.handler import Handler
from controlplane.apiserver.home import Pki, prepare_home
from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.pod_index import PodIndex
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.storage import ObjectStorage
from controlplane.apiserver.writer import ObjectWriter
from controlplane.store.protocol import Store
from mesh.clock import Clock, SystemClock
from mesh.identity.tls import ClientCertificate, server_context
from mesh.identity.tokens import TokenAuthority
from mesh.net.tasks import cancel_and_wait, spawn

logger = logging.getLogger(__name__)

SHUTDOWN_S = 2.0
"""Requests in flight get this long to end."""
BACKLOG = 512
KEEPALIVE_S = 90.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    addresses: tuple[Address, ...]
    """Where it listens, the inherited socket first."""
    pki: Pki
    core: Core

    @property
    def url(self) -> str:
        """`https://HOST:PORT` of the first address."""
        host, port = self.addresses[0]
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"


async def serve(
    config: ApiServerConfig,
    store: Store,
    admission: Sequence[Admission] = (),
    *,
    pki: Pki | None = None,
    on_ready: Callable[[RunningServer], None] = lambda _server: None,
) -> None:
    """Serve until cancelled; `on_ready` is called once every address answers. Raises PkiError, OSError (address in use)."""
    async with running(config, store, admission, pki=pki) as server:
        on_ready(server)
        await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def running(
    config: ApiServerConfig,
    store: Store,
    admission: Sequence[Admission] = (),
    *,
    pki: Pki | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[RunningServer]:
    """A server that answers while the block runs. `admission` are plugins that come before the allocation of addresses."""
    pki = pki or prepare_home(config)
    core = _build(config, store, admission, pki, clock or SystemClock(), rng or random.SystemRandom())
    await core.custom_kinds.start()
    await core.pods.start(store)
    async with asyncio.TaskGroup() as tasks:
        cleaner = spawn(
            tasks, clean_up(core.custom_kinds, store, core.kinds, core.writer), name="custom-resource-cleaner"
        )
        compactor = spawn(tasks, compact_regularly(store, config.compaction_interval_s), name="store-compactor")
        try:
            async with _listening(core, pki) as addresses:
                port = addresses[-1][1]
                await Bootstrap(core.storage, core.kinds, core.rules, core.clock, config).run(port)
                core.is_ready = True
                yield RunningServer(addresses, pki, core)
        finally:
            core.custom_kinds.stop()
            core.pods.stop()
            await core.backends.close()
            await cancel_and_wait(cleaner)
            await cancel_and_wait(compactor)


def _build(
    config: ApiServerConfig, store: Store, admission: Sequence[Admission], pki: Pki, clock: Clock, rng: random.Random
) -> Core:
    kinds, rules, pods = KindRegistry.builtin(), Rules(), PodIndex()
    storage = ObjectStorage(store, kinds, clock, config.event_ttl_s)
    tokens = TokenAuthority(pki.token_key, f"https://kubernetes.default.svc.{config.cluster_domain}")
    plugins: list[Admission] = [
        NamespaceLifecycle(),
        ServiceAccountAdmission(),
        *admission,
        CustomKindAdmission(kinds, rules, clock),
        ServiceAllocation(store, config.service_cidr, config.node_ports, rng),
    ]
    return Core(
        config=config,
        store=store,
        kinds=kinds,
        custom_kinds=CustomKinds(store, kinds, rules),
        storage=storage,
        rules=rules,
        documents=Documents(kinds, rules),
        writer=ObjectWriter(storage, rules, plugins, clock, rng),
        tokens=tokens,
        authenticator=Authenticator(tokens, store, kinds, clock),
        authorizer=FixedAuthorizer(pods),
        pods=pods,
        backends=Backends(pki, config.kubelet_timeout_s),
        clock=clock,
        rng=rng,
    )


@asynccontextmanager
async def _listening(core: Core, pki: Pki) -> AsyncIterator[tuple[Address, ...]]:
    loop = asyncio.get_running_loop()
    tls = server_context(pki.server, pki.ca_file, client_certificate=ClientCertificate.OPTIONAL)
    limit = core.config.max_body_bytes + 1

    def make_request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)

    protocols = web.Server(
        Handler(core),
        request_factory=make_request,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_S,
        access_log=None,
    )
    servers: list[asyncio.Server] = []
    addresses: list[Address] = []
    try:
        for bound in _sockets(core.config):
            servers.append(await loop.create_server(protocols, sock=bound, ssl=tls, backlog=BACKLOG))
            addresses.append(bound.getsockname()[:2])
        yield tuple(addresses)
    finally:
        core.is_closing = True
        for server in servers:
            server.close()
        for stream in tuple(core.watches):
            stream.close()
        protocols.pre_shutdown()
        await protocols.shutdown(SHUTDOWN_S)


def _sockets(config: ApiServerConfig) -> list[socket.socket]:
    """The inherited socket and one per address, bound. Raises OSError."""
    sockets: list[socket.socket] = []
    if config.api_fd is not None:
        sockets.append(socket.socket(fileno=config.api_fd))
    for address in config.api_addresses:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, int(port)))
        sockets.append(bound)
    for one in sockets:
        one.setblocking(False)
    return sockets
