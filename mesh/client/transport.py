"""Requests over one connection pool: TLS, credentials, deadlines, retries where they are safe, typed errors."""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson
from yarl import URL

from mesh.backoff import Backoff
from mesh.client.config import ClientConfig
from mesh.client.errors import ApiError, BadRequestError, TooManyRequestsError, UnavailableError, error_from_status

logger = logging.getLogger(__name__)

_RETRY_BACKOFF = Backoff(base_s=0.05, cap_s=2.0)
_MAX_TRIES = 5
_MAX_RETRY_AFTER_S = 10.0
_MAX_ERROR_BODY_BYTES = 1 << 20


class Transport:
    """The HTTP side of `ApiClient`. One per client; an async context manager."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._slots = asyncio.Semaphore(config.max_concurrent_requests)
        self._session: aiohttp.ClientSession | None = None
        self._rng = random.Random()

    async def open(self) -> None:
        """Make the pool. Nothing is connected yet. Raises ClientConfigError."""
        if self._session is not None:
            return
        context = self._config.ssl_context()
        # No limit here: requests are limited by `_slots`, and watches must never keep a request from a connection.
        connector = aiohttp.TCPConnector(
            limit=0, ssl=context if context is not None else True, socket_factory=_keep_alive_socket
        )
        headers = {"User-Agent": self._config.user_agent, "Accept": "application/json"}
        if self._config.token:
            headers["Authorization"] = f"Bearer {self._config.token}"
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=True)

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> bytes:
        """One request and its whole answer, in the media type `accept` when given. Raises ApiError.

        Tried again, with jitter and within one deadline, when that can't do anything twice: a GET after any temporary failure,
        other methods only when no connection was made or the server answered 429.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._config.request_timeout_s
        async with self._slots:
            for attempt in range(1, _MAX_TRIES + 1):
                try:
                    return await self._once(method, path, query, body, content_type, deadline - loop.time(), accept)
                except ApiError as exc:
                    delay_s = self._retry_delay_s(method, exc, attempt)
                    if delay_s is None or loop.time() + delay_s >= deadline:
                        raise
                    await asyncio.sleep(delay_s)
        raise AssertionError("the last try returns or raises")

    def _retry_delay_s(self, method: str, error: ApiError, attempt: int) -> float | None:
        """Seconds to wait before the next try; None: give up."""
        if attempt >= _MAX_TRIES:
            return None
        if isinstance(error, TooManyRequestsError):
            return min(error.retry_after_s or 0.5, _MAX_RETRY_AFTER_S) * (1.0 + 0.1 * self._rng.random())
        if isinstance(error, UnavailableError) and (error.reason == "ConnectFailed" or method == "GET"):
            return _RETRY_BACKOFF.delay_s(attempt, self._rng)
        return None

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout_s: float,
        accept: str,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=max(timeout_s, 0.001))
        async with self._answer(method, path, query, body, content_type, timeout, accept) as response:
            return await response.read()

    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, read_timeout_s: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """GET `path` and yield its body as it comes. Never tried again. Raises ApiError.

        `read_timeout_s`: longest silence, seconds; None waits for ever (dead peers are found by TCP keep-alive).
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._config.request_timeout_s, sock_read=read_timeout_s
        )
        async with self._answer("GET", path, query, None, "application/json", timeout) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
        accept: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful response's head; the body is read inside. Every failure, also while reading, is an ApiError."""
        session = self._session
        if session is None:
            raise UnavailableError(f"{method} {path}: the client is closed", reason="Closed")
        headers = {"Content-Type": content_type} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        try:
            async with session.request(
                method,
                URL(self._config.server + path),
                params=dict(query) if query else None,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                server_hostname=self._config.tls_server_name or None,
            ) as response:
                if response.status >= 300:
                    raise await _error_of(response, f"{method} {path}")
                yield response
        except aiohttp.ClientConnectorError as exc:
            raise UnavailableError(
                f"{method} {path}: can't connect to {self._config.server}: {exc}", reason="ConnectFailed"
            ) from exc
        except TimeoutError as exc:
            raise UnavailableError(f"{method} {path}: no answer in time", reason="Timeout") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise UnavailableError(f"{method} {path}: connection lost: {exc!r}", reason="ConnectionLost") from exc
        except ValueError as exc:
            raise BadRequestError(f"{method} {path}: {exc}", reason="BadRequest") from exc


async def _error_of(response: aiohttp.ClientResponse, request: str) -> ApiError:
    raw = await response.content.read(_MAX_ERROR_BODY_BYTES)
    body: Any = None
    with contextlib.suppress(orjson.JSONDecodeError):
        body = orjson.loads(raw)
    if not isinstance(body, dict):
        text = raw[:300].decode("utf-8", "replace").strip()
        body = {"message": f"HTTP {response.status} {text}".rstrip()}
    retry_after = response.headers.get("Retry-After", "")
    if retry_after.isdecimal():
        details = body.get("details") if isinstance(body.get("details"), dict) else {}
        body = {**body, "details": {"retryAfterSeconds": int(retry_after), **details}}
    return error_from_status(response.status, body, request=request)


def _keep_alive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a dead peer within about 25 s, so that a silent watch does not wait for its time-out."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family=family, type=kind, proto=protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return sock
