"""The HTTPS monitor: what each proxy was sent and has acknowledged. Client certificates of the cluster's CA only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from controlplane.discovery.config import DiscoveryConfig
from controlplane.discovery.errors import DiscoveryConfigError
from controlplane.discovery.publisher import Publisher
from controlplane.discovery.resources import CDS, EDS, LDS, RDS, SHORT_NAMES
from mesh.api.resources import Json
from mesh.identity.errors import PkiError
from mesh.identity.pki import KeyPair
from mesh.identity.tls import ClientCertificate, server_context

_MESSAGES: dict[str, Any] = {
    CDS: cluster_pb2.Cluster,
    EDS: endpoint_pb2.ClusterLoadAssignment,
    LDS: listener_pb2.Listener,
    RDS: route_pb2.RouteConfiguration,
}
_ALLOWED_NAMES = frozenset({"kube-apiserver-kubelet-client", "meshwork-admin"})
"""Common names that may read everything; others need the organization system:masters."""


class Monitor:
    """Answers GET /healthz, /debug/syncz and /debug/config_dump?proxy=POD.NAMESPACE."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def application(self) -> web.Application:
        """The routes, behind the check of the client certificate."""
        app = web.Application(middlewares=[_only_masters])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/debug/syncz", self._syncz)
        app.router.add_get("/debug/config_dump", self._config_dump)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _syncz(self, _request: web.Request) -> web.Response:
        proxies = sorted((proxy.to_sync_status() for proxy in self._publisher.proxies), key=lambda p: str(p["id"]))
        return web.json_response({"serial": self._publisher.snapshot.serial, "proxies": proxies})

    async def _config_dump(self, request: web.Request) -> web.Response:
        name = request.query.get("proxy", "")
        proxy = self._publisher.proxies.find(name)
        if proxy is None:
            message = f'no proxy "{name}" is connected: give proxy=POD.NAMESPACE, see /debug/syncz\n'
            return web.Response(status=404, text=message)
        tables = self._publisher.tables_of(proxy)
        dump: Json = {"proxy": proxy.name, "serial": self._publisher.snapshot.serial}
        for type_url, message_class in _MESSAGES.items():
            dump[SHORT_NAMES[type_url]] = [
                {
                    "name": resource.name,
                    "version": resource.version,
                    "resource": json_format.MessageToDict(
                        message_class.FromString(resource.body), preserving_proto_field_name=True
                    ),
                }
                for _, resource in sorted(tables[type_url].items())
            ]
        return web.json_response(dump)


@web.middleware
async def _only_masters(request: web.Request, handler: Any) -> web.StreamResponse:
    certificate = request.get_extra_info("peercert") or {}
    subject: dict[str, set[str]] = {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            subject.setdefault(key, set()).add(value)
    is_allowed = "system:masters" in subject.get("organizationName", set()) or bool(
        subject.get("commonName", set()) & _ALLOWED_NAMES
    )
    if not is_allowed:
        return web.Response(status=403, text="the client certificate has no right to read the monitor\n")
    response: web.StreamResponse = await handler(request)
    return response


@asynccontextmanager
async def serve_monitor(publisher: Publisher, config: DiscoveryConfig) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port. Raises DiscoveryConfigError."""
    try:
        context = server_context(
            KeyPair(Path(config.cert_file), Path(config.key_file)),
            Path(config.ca_file),
            client_certificate=ClientCertificate.REQUIRED,
        )
    except PkiError as exc:
        raise DiscoveryConfigError(f"the monitor's certificate is unusable: {exc}") from exc
    runner = web.AppRunner(Monitor(publisher).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        host = config.listen_address or config.cluster_address
        site = web.TCPSite(runner, host, config.monitor_port, ssl_context=context)
        try:
            await site.start()
        except OSError as exc:
            raise DiscoveryConfigError(f"the monitor can't listen on {host}:{config.monitor_port}: {exc}") from exc
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
