"""Typed views of discovery.k8s.io/v1: EndpointSlice."""

from collections.abc import Mapping

from mesh.api.meta import ObjectReference, ObjectView, View

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""On every EndpointSlice: the Service it belongs to."""


class EndpointConditions(View, frozen=True, kw_only=True):
    """None means unknown; readers take unknown `ready` and `serving` for true, `terminating` for false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(View, frozen=True, kw_only=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""
    deprecated_topology: Mapping[str, str] = {}

    @property
    def is_ready(self) -> bool:
        """May take new traffic."""
        return self.conditions.ready is not False

    @property
    def is_terminating(self) -> bool:
        """Its pod is on the way out."""
        return self.conditions.terminating is True


class EndpointSlicePort(View, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    app_protocol: str = ""


class EndpointSlice(ObjectView, frozen=True, kw_only=True):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointSlicePort, ...] = ()

    @property
    def service_name(self) -> str:
        """The Service this slice belongs to, or ""."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")
