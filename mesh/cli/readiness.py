"""Is the cluster ready? Asked with the standard library: the launcher stays for days and should stay small."""

import http.client
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_TIMEOUT_S = 2.0
_MAX_BYTES = 8 << 20
_NODES = "/api/v1/nodes"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_FAILURES = (OSError, ssl.SSLError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What can be seen from outside."""

    is_api_ready: bool
    ready_nodes: tuple[str, ...] = ()
    all_nodes: tuple[str, ...] = ()


def probe(home: Path, api_port: int, since: float) -> Readiness:
    """Ask the API server on 127.0.0.1. Blocking, at most a few seconds. Not ready is an answer, not an error.

    A node counts when it says Ready and has renewed its lease after `since` (seconds since the epoch): what the store remembers
    from an earlier run says nothing about this one.
    """
    try:
        with _connected(home, api_port) as connection:
            if _get(connection, "/readyz") is None:
                return Readiness(is_api_ready=False)
            nodes = json.loads(_get(connection, _NODES) or b"{}").get("items") or ()
            leases = json.loads(_get(connection, _LEASES) or b"{}").get("items") or ()
            alive = {lease["metadata"]["name"] for lease in leases if _renewed_at(lease) >= since}
            ready = (node["metadata"]["name"] for node in nodes if _is_ready(node))
            names = tuple(node["metadata"]["name"] for node in nodes)
            return Readiness(True, tuple(name for name in ready if name in alive), names)
    except _FAILURES:
        return Readiness(is_api_ready=False)


def remove_surplus_nodes(home: Path, api_port: int, present: tuple[str, ...], wanted: int) -> tuple[str, ...]:
    """Delete the Node objects of an earlier, larger cluster in this home: `node-N` with N beyond `wanted`. Returns their names."""
    surplus = tuple(n for n in present if (m := re.fullmatch(r"node-(\d+)", n)) and int(m.group(1)) > wanted)
    removed = []
    for name in surplus:
        try:
            with _connected(home, api_port) as connection:
                connection.request("DELETE", f"{_NODES}/{name}", headers={"Accept": "application/json"})
                if connection.getresponse().status in (200, 202):
                    removed.append(name)
        except _FAILURES:
            continue
    return tuple(removed)


@contextmanager
def _connected(home: Path, api_port: int) -> Iterator[http.client.HTTPSConnection]:
    context = ssl.create_default_context(cafile=str(home / "pki" / "ca.crt"))
    context.load_cert_chain(home / "pki" / "admin.crt", home / "pki" / "admin.key")
    connection = http.client.HTTPSConnection("127.0.0.1", api_port, timeout=_TIMEOUT_S, context=context)
    try:
        yield connection
    finally:
        connection.close()


def _get(connection: http.client.HTTPSConnection, path: str) -> bytes | None:
    connection.request("GET", path, headers={"Accept": "application/json"})
    response = connection.getresponse()
    body = response.read(_MAX_BYTES)
    return body if response.status == 200 else None


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _renewed_at(lease: dict[str, Any]) -> float:
    text = lease.get("spec", {}).get("renewTime")
    return datetime.fromisoformat(text).timestamp() if text else 0.0
