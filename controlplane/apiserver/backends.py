"""Requests the server passes on: to node agents for logs and pod ports, to services' endpoints. Streams both ways."""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from controlplane.apiserver import errors
from controlplane.apiserver.home import Pki
from mesh.api.resources import Json
from mesh.identity.tls import client_context

logger = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "authorization", "cookie", "accept-encoding", "content-length"}
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where a request goes."""

    scheme: str
    address: str
    port: int
    path: str
    """Raw, with its leading slash."""
    query: str = ""
    server_name: str = ""
    """The name the certificate must carry; "" is the address."""

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{host}:{self.port}{self.path}{query}"


class Backends:
    """One client for all upstreams; shows the API server's certificate where TLS is spoken."""

    def __init__(self, pki: Pki, connect_timeout_s: float) -> None:
        self._tls: ssl.SSLContext = client_context(pki.ca_file, pki.kubelet_client)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_read=None)
        self._client: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Idempotent."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def forward(
        self, request: web.BaseRequest, upstream: Upstream, *, limit_bytes: int, method: str = ""
    ) -> web.StreamResponse:
        """Pass `request` on and its answer back as it comes. Raises ApiStatusError (503) if nobody answers."""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_FORWARDED}
        body = await request.content.read(limit_bytes + 1) if request.can_read_body else None
        while body is not None and len(body) <= limit_bytes and not request.content.at_eof():
            body += await request.content.read(limit_bytes + 1 - len(body))
        if body is not None and len(body) > limit_bytes:
            raise errors.too_large(limit_bytes)
        try:
            async with self._session().request(
                method or request.method,
                upstream.url,
                headers=headers,
                data=body,
                ssl=self._tls if upstream.scheme == "https" else False,
                server_hostname=upstream.server_name or None,
                allow_redirects=False,
            ) as answer:
                return await _relay(request, answer)
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            if isinstance(exc, ConnectionResetError) and request.transport is None:
                raise
            raise errors.unavailable(
                f"error trying to reach {upstream.scheme}://{upstream.address}:{upstream.port}: {exc}"
            ) from exc

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=self._timeout,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=200, limit_per_host=50),
            )
        return self._client


async def _relay(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in answer.headers.items():
        if name.lower() not in _HOP_BY_HOP:
            headers.add(name, value)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as exc:
        # The head is on its way already: all that is left is to break off, so that nobody takes it for whole.
        logger.info("upstream broke off", extra={"url": str(answer.url), "error": str(exc)})
        if request.transport is not None:
            request.transport.close()
        return response
    await response.write_eof()
    return response


def node_address(node: Json) -> str | None:
    """The address a node's agent listens on."""
    addresses = (node.get("status") or {}).get("addresses") or ()
    for type_ in ("InternalIP", "ExternalIP", "Hostname"):
        for one in addresses:
            if one.get("type") == type_ and one.get("address"):
                return str(one["address"])
    return None


def node_port(node: Json, default: int) -> int:
    """The port of a node's agent."""
    endpoint: Mapping[str, object] = ((node.get("status") or {}).get("daemonEndpoints") or {}).get(
        "kubeletEndpoint"
    ) or {}
    port = endpoint.get("Port")
    return port if isinstance(port, int) and 0 < port < 65536 else default
