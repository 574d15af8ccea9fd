"""What a route says about a request: an answer of our own, or the endpoint of the first attempt."""

from typing import TYPE_CHECKING

from mesh.routing.rewrite import redirect_location
from mesh.routing.table import DirectResponse, Redirect
from sidecar import flags as flag
from sidecar.cluster import ClusterState
from sidecar.endpoint import EndpointState

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


def decide(exchange: "Exchange", now: float) -> None:
    """Answer, or begin the first attempt."""
    cluster = exchange.branch.cluster
    compiled = exchange.route.compiled
    if compiled is None:
        table = exchange.runtime.table.table.name
        authority = exchange.template.head.authority.decode()
        why = f'no route: table "{table}" has none for this host and path (host "{authority}")'
        exchange.reply_with(404, flag.NO_ROUTE, why)
        return
    action = compiled.route.action
    if isinstance(action, DirectResponse):
        exchange.reply_direct(action.status, action.body, ())
    elif isinstance(action, Redirect):
        location = redirect_location(action, compiled.route.match.path, exchange.template.head)
        exchange.reply_direct(action.status, b"", (b"location: " + location,))
    elif cluster is None:
        why = f'no cluster "{exchange.branch.name}" in this configuration'
        exchange.reply_with(action.missing_cluster_status, flag.NO_CLUSTER, why)
    elif cluster.active >= cluster.max_requests:
        cluster.counts.pending_overflows += 1
        exchange.reply_with(
            503, flag.UPSTREAM_OVERFLOW, f'cluster "{cluster.config.name}": too many requests in flight'
        )
    else:
        exchange.attempt(_first_host(exchange, cluster), cluster, now)


def _first_host(exchange: "Exchange", cluster: ClusterState) -> EndpointState | None:
    if cluster.picker is None:
        return cluster.original_host(exchange.connection.original_destination)
    return cluster.pick_for(hash_key=exchange.hash_key, labels=exchange.branch.labels, pinned=exchange.pinned)
