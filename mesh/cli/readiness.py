"""Is the cluster ready? Asked with the standard library: the launcher stays for days and should stay small."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_S = 2.0
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Readiness:
    """What can be seen from outside."""

    is_api_ready: bool
    ready_nodes: tuple[str, ...] = ()


def probe(home: Path, api_port: int) -> Readiness:
    """Ask the API server on 127.0.0.1. Blocking, at most a few seconds. Not ready is an answer, not an error."""
    connection: http.client.HTTPSConnection | None = None
    try:
        context = ssl.create_default_context(cafile=str(home / "pki" / "ca.crt"))
        context.load_cert_chain(home / "pki" / "admin.crt", home / "pki" / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", api_port, timeout=_TIMEOUT_S, context=context)
        if _get(connection, "/readyz") is None:
            return Readiness(is_api_ready=False)
        listed = _get(connection, "/api/v1/nodes")
        return Readiness(is_api_ready=True, ready_nodes=_ready_nodes(json.loads(listed or b"{}")))
    except (OSError, ssl.SSLError, http.client.HTTPException, ValueError):
        return Readiness(is_api_ready=False)
    finally:
        if connection is not None:
            connection.close()


def _get(connection: http.client.HTTPSConnection, path: str) -> bytes | None:
    connection.request("GET", path, headers={"Accept": "application/json"})
    response = connection.getresponse()
    body = response.read(_MAX_BYTES)
    return body if response.status == 200 else None


def _ready_nodes(listed: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        str(node["metadata"]["name"])
        for node in listed.get("items") or ()
        if any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in node.get("status", {}).get("conditions", ())
        )
    )
