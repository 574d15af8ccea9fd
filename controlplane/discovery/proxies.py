"""The proxies that are connected: who they are, what they were sent, how far each has got."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.discovery.errors import ProxyRefusedError
from controlplane.discovery.facts import ObjectKey
from controlplane.discovery.resources import SHORT_NAMES
from controlplane.discovery.snapshot import Scope
from controlplane.discovery.stream import StreamState
from mesh.api.resources import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyIdentity:
    """Who a proxy says it is, in its node message."""

    node_id: str
    address: str
    namespace: str
    pod: str
    labels: Mapping[str, str]
    node: str
    """The machine it runs on; "" when not told."""
    version: str
    kind: str
    """`meshwork`, `envoy` or `grpc`."""
    intercepts: bool

    @property
    def key(self) -> ObjectKey:
        """(namespace, name) of its pod."""
        return self.namespace, self.pod


def read_identity(node: Any) -> ProxyIdentity:
    """From envoy.config.core.v3.Node: `sidecar~POD_IP~POD.NS~DOMAIN` and its metadata. Raises ProxyRefusedError."""
    parts = str(node.id).split("~")
    pod, _, namespace = parts[2].rpartition(".") if len(parts) == 4 else ("", "", "")
    if not pod or not namespace:
        raise ProxyRefusedError(f'node id "{node.id}": want sidecar~POD_IP~POD.NAMESPACE~NAMESPACE.svc.cluster.local')
    fields = node.metadata.fields
    labels = fields["LABELS"].struct_value.fields if "LABELS" in fields else {}
    return ProxyIdentity(
        node_id=str(node.id),
        address=parts[1],
        namespace=namespace,
        pod=pod,
        labels={key: value.string_value for key, value in labels.items()},
        node=_text(fields, "NODE_NAME"),
        version=_text(fields, "VERSION") or str(node.user_agent_version),
        kind=_text(fields, "PROXY") or ("grpc" if "gRPC" in node.user_agent_name else "envoy"),
        intercepts=_text(fields, "INTERCEPTION_MODE") != "NONE",
    )


def _text(fields: Any, name: str) -> str:
    return str(fields[name].string_value) if name in fields else ""


@dataclass(slots=True, eq=False)
class ConnectedProxy:
    """One stream."""

    identity: ProxyIdentity
    state: StreamState
    scope: Scope
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to send."""
    shown_serial: int = 0
    """The snapshot it should have."""
    settled_serial: int = 0
    """The newest snapshot of which it has answered everything."""
    settled_at: float = 0.0
    """Unix time of the last answer."""

    @property
    def name(self) -> str:
        """POD.NAMESPACE."""
        return f"{self.identity.pod}.{self.identity.namespace}"

    def to_sync_status(self) -> Json:
        """Its entry in /debug/syncz."""
        types = {
            SHORT_NAMES[type_url]: {
                "sent": state.sent_version,
                "acked": state.acked_version,
                "nonce": state.nonce,
                "error": state.error,
                "at": self.settled_at,
            }
            for type_url, state in self.state.types.items()
            if state.is_subscribed
        }
        identity = self.identity
        return {
            "id": identity.node_id,
            "pod": identity.pod,
            "namespace": identity.namespace,
            "node": identity.node,
            "version": identity.version,
            "proxy": identity.kind,
            "types": types,
        }


class ProxyRegistry:
    """The connected proxies. Changed only on the event loop."""

    def __init__(self) -> None:
        self._proxies: set[ConnectedProxy] = set()

    def __iter__(self) -> Iterator[ConnectedProxy]:
        return iter(tuple(self._proxies))

    def __len__(self) -> int:
        return len(self._proxies)

    def add(self, proxy: ConnectedProxy) -> None:
        """A stream has begun."""
        self._proxies.add(proxy)

    def remove(self, proxy: ConnectedProxy) -> None:
        """A stream has ended."""
        self._proxies.discard(proxy)

    def find(self, name: str) -> ConnectedProxy | None:
        """The proxy POD.NAMESPACE (the newest stream of several), or None."""
        found = [proxy for proxy in self._proxies if proxy.name == name]
        return max(found, key=lambda proxy: proxy.shown_serial, default=None)

    def behind(self, serial: int) -> tuple[ConnectedProxy, ...]:
        """Those that have not answered snapshot `serial` yet."""
        return tuple(proxy for proxy in self._proxies if proxy.settled_serial < serial)

    def scopes(self) -> frozenset[Scope]:
        """Every scope in use."""
        return frozenset(proxy.scope for proxy in self._proxies)
