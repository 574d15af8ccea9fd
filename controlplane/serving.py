"""The API server on its store, with the admission plugins of the other rooms."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.apiserver import errors
from controlplane.apiserver.admission import Admission
from controlplane.apiserver.config import ApiServerConfig, NodeAddress
from controlplane.apiserver.home import cluster_server
from controlplane.apiserver.server import RunningServer, running
from controlplane.config import ControlPlaneConfig
from controlplane.injector.admission import PolicyGate, SidecarInjector
from controlplane.store.sqlite import open_sqlite_store
from mesh.client.config import ClientConfig
from policies.injection import InjectionConfig


@asynccontextmanager
async def api(config: ControlPlaneConfig) -> AsyncIterator[ClientConfig]:
    """Serve the API for the time of the block; yields how the control plane's own parts reach it.

    Raises StoreError, PkiError, OSError (address in use).
    """
    store_folder = config.home / "store"
    store_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    server_config = _server_config(config)
    store = await open_sqlite_store(store_folder / "store.db")
    try:
        injection = InjectionConfig(discovery_address=f"{config.cluster_address}:{config.discovery_port}")
        plugins: list[Admission] = [SidecarInjector(errors.refused, injection), PolicyGate(errors.invalid)]
        async with running(server_config, store, plugins) as server:
            yield _client_config(server_config, server)
    finally:
        await store.close()


def _server_config(config: ControlPlaneConfig) -> ApiServerConfig:
    return ApiServerConfig(
        home=config.home,
        api_fd=config.api_fd,
        api_addresses=config.api_addresses,
        external_server=config.external_server,
        cluster_address=config.cluster_address,
        nodes=tuple(NodeAddress(name=node.name, address=node.address) for node in config.nodes),
        service_cidr=config.service_cidr,
        cluster_domain=config.cluster_domain,
    )


def _client_config(config: ApiServerConfig, server: RunningServer) -> ClientConfig:
    """The inherited socket belongs to another network namespace: prefer an address of our own."""
    host, port = server.addresses[-1]
    url = cluster_server(config) or f"https://{host}:{port}"
    pair = server.pki.control_plane
    return ClientConfig(
        server=url, ca_file=str(server.pki.ca_file), cert_file=str(pair.cert_file), key_file=str(pair.key_file)
    )
