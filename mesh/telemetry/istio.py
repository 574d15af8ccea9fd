"""Names and labels of Istio's standard metrics, which dashboards, Flagger and Kiali query. Pure.

Source: istio.io, "Istio Standard Metrics".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

REQUESTS: Final = "istio_requests_total"
REQUEST_DURATION: Final = "istio_request_duration_milliseconds"
REQUEST_BYTES: Final = "istio_request_bytes"
RESPONSE_BYTES: Final = "istio_response_bytes"
TCP_SENT: Final = "istio_tcp_sent_bytes_total"
TCP_RECEIVED: Final = "istio_tcp_received_bytes_total"
TCP_OPENED: Final = "istio_tcp_connections_opened_total"
TCP_CLOSED: Final = "istio_tcp_connections_closed_total"

UNKNOWN: Final = "unknown"
"""Istio's word for what a label can't say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One end of a request. Empty fields become `unknown`."""

    workload: str = ""
    namespace: str = ""
    principal: str = ""
    """SPIFFE id; empty without mTLS."""
    app: str = ""
    version: str = ""

    @staticmethod
    def of(workload: Mapping[str, str]) -> "Peer":
        """From an endpoint's `meshwork.dev` metadata."""
        return Peer(
            workload=workload.get("workload", ""),
            namespace=workload.get("namespace", ""),
            principal=workload.get("principal", ""),
            app=workload.get("app", ""),
            version=workload.get("version", ""),
        )

    def labels(self, side: str) -> dict[str, str]:
        """The labels of this end; `side` is source or destination."""
        return {
            f"{side}_workload": self.workload or UNKNOWN,
            f"{side}_workload_namespace": self.namespace or UNKNOWN,
            f"{side}_principal": self.principal or UNKNOWN,
            f"{side}_app": self.app or UNKNOWN,
            f"{side}_version": self.version or UNKNOWN,
        }


def service_labels(host: str) -> dict[str, str]:
    """The destination service, from its full name such as `web.shop.svc.cluster.local`."""
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    if not rest.startswith(f"{namespace}.svc"):
        name, namespace = host, UNKNOWN
    return {
        "destination_service": host or UNKNOWN,
        "destination_service_name": name or UNKNOWN,
        "destination_service_namespace": namespace or UNKNOWN,
    }


def cluster_host(cluster: str) -> str:
    """The host in a cluster's name (`outbound|80|v1|web.shop.svc.cluster.local`); else the name itself."""
    parts = cluster.split("|")
    return parts[3] if len(parts) == 4 else cluster


def reporter_labels(*, is_inbound: bool, own: Peer, other: Peer) -> dict[str, str]:
    """Who reports, and both ends. Inbound, we are the destination; outbound, the source."""
    source, destination = (other, own) if is_inbound else (own, other)
    reporter = "destination" if is_inbound else "source"
    return {"reporter": reporter, **source.labels("source"), **destination.labels("destination")}
