"""The resource types that a sidecar asks for."""

from typing import Final

_PREFIX: Final = "type.googleapis.com/envoy.config."

LISTENER: Final = _PREFIX + "listener.v3.Listener"
ROUTE: Final = _PREFIX + "route.v3.RouteConfiguration"
CLUSTER: Final = _PREFIX + "cluster.v3.Cluster"
ENDPOINT: Final = _PREFIX + "endpoint.v3.ClusterLoadAssignment"

IN_ORDER: Final = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""What must be known before what refers to it. Source: xDS protocol, "Eventual consistency considerations"."""

SHORT_NAMES: Final = {CLUSTER: "CDS", ENDPOINT: "EDS", LISTENER: "LDS", ROUTE: "RDS"}
