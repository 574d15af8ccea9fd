"""Puts the parts of a control plane process together: store, API server, and everything that uses the API as a client.

The API answers first; the other parts are imported off the loop and started while it serves.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from controlplane.config import Component, ControlPlaneConfig
from controlplane.errors import ControlPlaneConfigError, PartEndedError
from mesh.client.config import ClientConfig
from mesh.client.rest import ApiClient
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

Part = Callable[[ApiClient], Awaitable[None]]
"""Runs until cancelled."""
Load = Callable[[ControlPlaneConfig], Part]
"""Imports a part's modules (slow, off the loop) and binds its settings."""


async def run(config: ControlPlaneConfig, *, started_at: float) -> None:
    """Run the components until cancelled. `started_at` (time.monotonic) is when the process began, for the log.

    Raises PartEndedError or the part's own error (in an ExceptionGroup) when one ends; ControlPlaneConfigError, StoreError,
    PkiError or OSError when it can't start.
    """
    imports = asyncio.Lock()
    async with _api(config, started_at) as client_config, asyncio.TaskGroup() as group:
        for name in config.components:
            if name != "apiserver":
                spawn(group, _run_part(name, config, client_config, started_at, imports), name=name)


@asynccontextmanager
async def _api(config: ControlPlaneConfig, started_at: float) -> AsyncIterator[ClientConfig]:
    """The API to use: our own, served for the time of the block, or the one that run/controlplane.kubeconfig names."""
    if "apiserver" not in config.components:
        yield ClientConfig.from_kubeconfig(config.home / "run" / "controlplane.kubeconfig")
        return
    from controlplane import serving

    async with serving.api(config) as client_config:
        _log_ready("apiserver", started_at)
        yield client_config


async def _run_part(
    name: Component, config: ControlPlaneConfig, client_config: ClientConfig, started_at: float, imports: asyncio.Lock
) -> None:
    async with imports:  # two threads that import packages with cycles, as grpc.aio has, can deadlock on import locks
        part = await asyncio.to_thread(_LOADERS[name], config)
    async with ApiClient(client_config) as client:
        _log_ready(name, started_at)
        await part(client)
    raise PartEndedError(f"{name} ended by itself: that is a bug; its last log lines say more")


def _log_ready(name: str, started_at: float) -> None:
    logger.info("part started", extra={"part": name, "after_s": round(time.monotonic() - started_at, 3)})


def _load_controllers(config: ControlPlaneConfig) -> Part:
    from controlplane.controllers import run as controllers
    from controlplane.controllers.config import ControllersConfig

    ca_file = config.home / "pki" / "ca.crt"
    try:
        root_ca_pem = ca_file.read_text()
    except OSError as exc:
        raise ControlPlaneConfigError(f"{ca_file} can't be read: {exc.strerror}; start the API server first") from exc
    settings = ControllersConfig(
        root_ca_pem=root_ca_pem, node_grace_s=config.node_grace_s, eviction_after_s=config.eviction_after_s
    )
    return partial(controllers.run, config=settings)


def _load_scheduler(_config: ControlPlaneConfig) -> Part:
    from controlplane.scheduler import scheduler

    return scheduler.run


def _load_discovery(config: ControlPlaneConfig) -> Part:
    from controlplane.discovery import service
    from controlplane.discovery.config import DiscoveryConfig, MeshSettings

    pki = config.home / "pki"
    mesh = MeshSettings(
        domain=config.cluster_domain,
        trace_sampling_percent=config.trace_sampling_percent,
        traces_address=config.cluster_address,
        traces_port=config.traces_otlp_port,
    )
    settings = DiscoveryConfig(
        cluster_address=config.cluster_address,
        ads_port=config.discovery_port,
        monitor_port=config.discovery_monitor_port,
        traces_monitor_port=config.traces_query_port,
        ca_file=str(pki / "ca.crt"),
        cert_file=str(pki / "discovery.crt"),
        key_file=str(pki / "discovery.key"),
        mesh=mesh,
    )
    return partial(service.run, config=settings)


def _load_traces(config: ControlPlaneConfig) -> Part:
    from controlplane.traces import service
    from mesh.identity.pki import KeyPair

    pki = config.home / "pki"
    settings = service.TracesConfig(
        otlp_address=f"{config.cluster_address}:{config.traces_otlp_port}",
        query_address=f"{config.cluster_address}:{config.traces_query_port}",
        certificate=KeyPair(pki / "discovery.crt", pki / "discovery.key"),
        ca_file=pki / "ca.crt",
    )

    async def run_traces(_client: ApiClient) -> None:
        await service.run(settings)

    return run_traces


_LOADERS: dict[Component, Load] = {
    "scheduler": _load_scheduler,
    "controllers": _load_controllers,
    "discovery": _load_discovery,
    "traces": _load_traces,
}
