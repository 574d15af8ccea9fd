"""envoy.config.endpoint.v3.ClusterLoadAssignment -> LoadAssignment. Pure."""

import ipaddress
from typing import Any, Final

from mesh.balance.endpoint import Endpoint, Health, Labels, LoadAssignment, Locality
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, metadata, only, socket_address, wrapped

_HEALTH: Final = {
    0: Health.HEALTHY,  # UNKNOWN: nobody checks
    1: Health.HEALTHY,
    2: Health.UNHEALTHY,
    3: Health.DRAINING,
    4: Health.UNHEALTHY,  # TIMEOUT
    5: Health.DEGRADED,
}
_MAX_PRIORITY: Final = 128
"""Source: Envoy LocalityLbEndpoints.priority."""
_LABELS: Final = "envoy.lb"
"""Where an endpoint's labels stand in `filter_metadata`."""


def decode_assignment(assignment: Any, path: str) -> LoadAssignment:
    """A cluster's endpoints and what is said about all of them. Raises DecodeError."""
    endpoints = decode_endpoints(assignment, path)
    factor = wrapped(assignment.policy, "overprovisioning_factor", 140)
    if factor < 100:
        raise DecodeError(join(path, "policy.overprovisioning_factor"), f"is {factor}, want >= 100")
    return LoadAssignment(endpoints=endpoints, overprovisioning_percent=factor)


def decode_endpoints(assignment: Any, path: str) -> tuple[Endpoint, ...]:
    """All endpoints of a cluster, each with its locality and priority. Raises DecodeError."""
    only(assignment, path, "cluster_name", "endpoints", "policy")
    only(assignment.policy, join(path, "policy"), "overprovisioning_factor")
    found: list[Endpoint] = []
    for i, locality in enumerate(assignment.endpoints):
        where = f"{join(path, 'endpoints')}[{i}]"
        only(locality, where, "locality", "lb_endpoints", "load_balancing_weight", "priority", "metadata")
        if locality.priority > _MAX_PRIORITY:
            raise DecodeError(join(where, "priority"), f"is {locality.priority}, want at most {_MAX_PRIORITY}")
        place = Locality(locality.locality.region, locality.locality.zone, locality.locality.sub_zone)
        for j, one in enumerate(locality.lb_endpoints):
            found.append(_endpoint(one, f"{where}.lb_endpoints[{j}]", locality, place))
    return tuple(found)


def _endpoint(one: Any, path: str, locality: Any, place: Locality) -> Endpoint:
    only(one, path, "endpoint", "health_status", "load_balancing_weight", "metadata")
    only(one.endpoint, join(path, "endpoint"), "address", "hostname", "health_check_config")
    where = join(path, "endpoint.address")
    address, port = socket_address(one.endpoint.address, where)
    try:
        ipaddress.ip_address(address)
    except ValueError as exc:
        raise DecodeError(where, f'"{address}" is not an IP address; names are not resolved here') from exc
    checks, where = one.endpoint.health_check_config, join(path, "endpoint.health_check_config")
    only(checks, where, "port_value", "hostname", "disable_active_health_check")
    if checks.port_value > 65535:
        raise DecodeError(join(where, "port_value"), f"is {checks.port_value}, want 1 to 65535")
    workload = {key: str(value) for key, value in metadata(one).items() if isinstance(value, str)}
    return Endpoint(
        address=address,
        port=port,
        weight=max(wrapped(one, "load_balancing_weight", 1), 1),
        priority=locality.priority,
        health=_HEALTH[one.health_status],
        check_port=checks.port_value,
        check_host=str(checks.hostname),
        is_unchecked=checks.disable_active_health_check,
        workload=workload,
        locality=place,
        locality_weight=wrapped(locality, "load_balancing_weight", 0),
        labels=_labels(one),
        hostname=str(one.endpoint.hostname),
    )


def _labels(one: Any) -> Labels:
    """Texts under `envoy.lb`, sorted; subsets are made of texts only, so values of other kinds are left out."""
    if _LABELS not in one.metadata.filter_metadata:
        return ()
    fields = one.metadata.filter_metadata[_LABELS].fields.items()
    return tuple(
        sorted((name, value.string_value) for name, value in fields if value.WhichOneof("kind") == "string_value")
    )
