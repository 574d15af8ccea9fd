"""envoy.config.endpoint.v3.ClusterLoadAssignment -> endpoints. Pure."""

import ipaddress
from typing import Any, Final

from mesh.balance.endpoint import Endpoint, Health
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, metadata, only, socket_address, wrapped

_HEALTH: Final = {
    0: Health.HEALTHY,  # UNKNOWN: nobody checks
    1: Health.HEALTHY,
    2: Health.UNHEALTHY,
    3: Health.DRAINING,
    4: Health.UNHEALTHY,  # TIMEOUT
    5: Health.HEALTHY,  # DEGRADED
}


def decode_endpoints(assignment: Any, path: str) -> tuple[Endpoint, ...]:
    """All endpoints of a cluster; localities are flattened, priorities kept. Raises DecodeError."""
    only(assignment, path, "cluster_name", "endpoints", "policy")
    only(assignment.policy, join(path, "policy"), "overprovisioning_factor")
    found: list[Endpoint] = []
    for i, locality in enumerate(assignment.endpoints):
        where = f"{join(path, 'endpoints')}[{i}]"
        only(locality, where, "locality", "lb_endpoints", "load_balancing_weight", "priority", "metadata")
        for j, one in enumerate(locality.lb_endpoints):
            found.append(_endpoint(one, f"{where}.lb_endpoints[{j}]", locality.priority))
    return tuple(found)


def _endpoint(one: Any, path: str, priority: int) -> Endpoint:
    only(one, path, "endpoint", "health_status", "load_balancing_weight", "metadata")
    only(one.endpoint, join(path, "endpoint"), "address", "hostname", "health_check_config")
    where = join(path, "endpoint.address")
    address, port = socket_address(one.endpoint.address, where)
    try:
        ipaddress.ip_address(address)
    except ValueError as exc:
        raise DecodeError(where, f'"{address}" is not an IP address; names are not resolved here') from exc
    workload = {key: str(value) for key, value in metadata(one).items() if isinstance(value, str)}
    return Endpoint(
        address=address,
        port=port,
        weight=max(wrapped(one, "load_balancing_weight", 1), 1),
        priority=priority,
        health=_HEALTH[one.health_status],
        workload=workload,
    )
