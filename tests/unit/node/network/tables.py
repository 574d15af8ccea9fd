"""Building a ServiceTable from short descriptions."""

from typing import Any

from mesh.api.core import Service
from mesh.api.discovery import EndpointSlice
from mesh.client.informer import Change, ChangeType
from node.network.services import ServiceTable


def put_service(table: ServiceTable, name: str, namespace: str = "default", **spec: Any) -> None:
    """Add or replace a Service."""
    view = Service.of({"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    table.on_service(Change(ChangeType.ADDED, None, view))


def endpoint_slice(
    name: str, endpoints: list[Any], ports: list[Any], *, service: str = "", namespace: str = "default"
) -> EndpointSlice:
    """A slice of `service` (default: its own name)."""
    labels = {"kubernetes.io/service-name": service or name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return EndpointSlice.of({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})


def put_slice(table: ServiceTable, name: str, endpoints: list[Any], ports: list[Any], **more: str) -> EndpointSlice:
    """Add a slice."""
    view = endpoint_slice(name, endpoints, ports, **more)
    table.on_slice(Change(ChangeType.ADDED, None, view))
    return view


def ready(address: str, hostname: str = "") -> dict[str, Any]:
    return {"addresses": [address], "conditions": {"ready": True}, "hostname": hostname}


def terminating(address: str) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {"ready": False, "serving": True, "terminating": True}}
