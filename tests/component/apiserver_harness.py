"""The real API server on the real store, over HTTPS on loopback, for one test."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.apiserver.admission import Admission
from controlplane.apiserver.config import ApiServerConfig, NodeAddress
from controlplane.apiserver.server import RunningServer, running
from controlplane.store.protocol import Store
from controlplane.store.sqlite import open_sqlite_store
from mesh.api.resources import Json
from mesh.identity.pki import KeyPair
from mesh.identity.tls import client_context

NODES = (NodeAddress(name="node-1", address="127.0.0.1"), NodeAddress(name="node-2", address="127.0.0.2"))
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str]
    warnings: list[str]

    @property
    def message(self) -> str:
        return str(self.body["message"])

    @property
    def fields(self) -> list[str]:
        """Where the causes of a refusal are."""
        return [cause["field"] for cause in self.body["details"]["causes"]]


class Caller:
    """One user's view of the server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body` is sent as it is (bytes) or as JSON; headers with _ for -."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, path, data=data, headers=sent) as answer:
            raw = await answer.read()
            is_json = "json" in answer.headers.get("Content-Type", "")
            return Answer(
                answer.status,
                json.loads(raw) if is_json and raw else raw,
                dict(answer.headers),
                answer.headers.getall("Warning", []),
            )

    async def patch(self, path: str, body: Any, type_: str = MERGE) -> Answer:
        return await self("PATCH", path, body, Content_Type=type_)

    async def created(self, path: str, obj: Json) -> Json:
        answer = await self("POST", path, obj)
        assert answer.status == 201, answer.body
        result: Json = answer.body
        return result

    async def events(self, path: str, count: int) -> list[Json]:
        """The next `count` events of a watch."""
        found: list[Json] = []
        async with asyncio.timeout(10), self.session.get(path) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                found.append(json.loads(line))
                if len(found) == count:
                    break
        return found


@dataclass(slots=True)
class Api:
    server: RunningServer
    store: Store
    admin: Caller

    @asynccontextmanager
    async def user(self, pair: KeyPair | None = None, token: str = "") -> AsyncIterator[Caller]:
        """Somebody with another certificate or a token, or nobody."""
        tls = client_context(self.server.pki.ca_file, pair)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(self.server.url, connector=connector, headers=headers) as session:
            yield Caller(session)


@asynccontextmanager
async def api_server(home: Path, admission: Sequence[Admission] = (), **options: Any) -> AsyncIterator[Api]:
    """`options` are fields of ApiServerConfig."""
    config = ApiServerConfig(**{"home": home, "nodes": NODES, **options})
    store = await open_sqlite_store(home / "store.db")
    try:
        async with running(config, store, admission) as server:
            tls = client_context(server.pki.ca_file, server.pki.admin)
            connector = aiohttp.TCPConnector(ssl=tls)
            async with aiohttp.ClientSession(server.url, connector=connector) as session:
                yield Api(server, store, Caller(session))
    finally:
        await store.close()


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> Json:
    container = {"name": "c", "image": "nginx"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], **spec},
    }


def service(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec},
    }


def deployment(name: str, replicas: int = 2) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    }
