"""Service, Endpoints and EndpointSlice."""

from mesh.api.errors import FieldError, duplicate, forbidden, invalid, required
from mesh.api.resources import Json
from mesh.api.tree import item_path
from mesh.api.validation_names import (
    PROTOCOLS,
    check_choice,
    check_dns_label,
    check_dns_subdomain,
    check_immutable,
    check_ip,
    check_labels,
    check_one_of,
    check_port,
    check_port_number,
    check_qualified_name,
    check_range,
    check_unique,
)

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
MAX_SLICE_ENDPOINTS = 1000
MAX_SLICE_PORTS = 20_000
MAX_ADDRESSES = 100
_AFFINITY_S = 86_400


def validate_service(service: Json, old: Json | None) -> list[FieldError]:
    """Ports, addresses, type; the address stays once it is allocated."""
    spec = service.get("spec") or {}
    errors = check_choice(spec.get("type"), "spec.type", TYPES)
    errors += check_labels(spec.get("selector"), "spec.selector")
    errors += check_choice(spec.get("sessionAffinity"), "spec.sessionAffinity", ("None", "ClientIP"))
    for field in ("internalTrafficPolicy", "externalTrafficPolicy"):
        errors += check_choice(spec.get(field), f"spec.{field}", ("Cluster", "Local"))
    timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    errors += check_range(timeout, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 1, _AFFINITY_S)
    errors += _check_addresses(spec)
    errors += _check_service_ports(spec)
    if old is not None:
        errors += _check_kept_address(spec, old.get("spec") or {})
    return errors


def _check_addresses(spec: Json) -> list[FieldError]:
    kind, cluster_ip = spec.get("type"), spec.get("clusterIP") or ""
    errors: list[FieldError] = []
    if kind == "ExternalName":
        errors += check_dns_subdomain(str(spec.get("externalName") or "").rstrip(".").lower(), "spec.externalName")
        if cluster_ip and cluster_ip != "None":
            errors.append(forbidden("spec.clusterIP", "may not be set when `type` is 'ExternalName'"))
    elif cluster_ip and cluster_ip != "None":
        errors += check_ip(cluster_ip, "spec.clusterIP")
    if cluster_ip == "None" and kind in ("NodePort", "LoadBalancer"):
        errors.append(invalid("spec.clusterIP", cluster_ip, f"may not be set to 'None' for {kind} services"))
    for index, address in enumerate(spec.get("externalIPs") or ()):
        errors += check_ip(address, item_path("spec.externalIPs", index))
    return errors


def _check_service_ports(spec: Json) -> list[FieldError]:
    ports = spec.get("ports") or []
    errors: list[FieldError] = []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        errors.append(required("spec.ports"))
    for index, port in enumerate(ports):
        errors += _check_service_port(port, item_path("spec.ports", index), spec, is_only=len(ports) == 1)
    errors += check_unique((port.get("name") or None for port in ports), "spec.ports", "name")
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        place = (port.get("protocol", "TCP"), port.get("port"))
        if place in seen:
            errors.append(duplicate(item_path("spec.ports", index), {"protocol": place[0], "port": place[1]}))
        seen.add(place)
    node_ports = ((p.get("protocol", "TCP"), p["nodePort"]) if p.get("nodePort") else None for p in ports)
    return errors + check_unique(node_ports, "spec.ports", "nodePort")


def _check_service_port(port: Json, path: str, spec: Json, *, is_only: bool) -> list[FieldError]:
    errors = check_port_number(port.get("port"), f"{path}.port")
    if port.get("name") or not is_only:
        errors += check_dns_label(port.get("name"), f"{path}.name")
    errors += check_choice(port.get("protocol"), f"{path}.protocol", PROTOCOLS)
    if port.get("targetPort") is not None:
        errors += check_port(port["targetPort"], f"{path}.targetPort")
    if port.get("appProtocol"):
        errors += check_qualified_name(port["appProtocol"], f"{path}.appProtocol")
    if port.get("nodePort"):
        if spec.get("type") in ("NodePort", "LoadBalancer"):
            errors += check_port_number(port["nodePort"], f"{path}.nodePort")
        else:
            errors.append(forbidden(f"{path}.nodePort", f"may not be used when `type` is '{spec.get('type')}'"))
    return errors


def _check_kept_address(spec: Json, old: Json) -> list[FieldError]:
    if "ExternalName" in (spec.get("type"), old.get("type")) or not old.get("clusterIP") or not spec.get("clusterIP"):
        return []
    return check_immutable(spec["clusterIP"], old["clusterIP"], "spec.clusterIP")


def validate_endpoints(endpoints: Json, old: Json | None) -> list[FieldError]:
    """Addresses and ports."""
    errors: list[FieldError] = []
    for number, subset in enumerate(endpoints.get("subsets") or ()):
        path = item_path("subsets", number)
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(field) or ()):
                errors += check_ip(address.get("ip"), f"{path}.{field}[{index}].ip")
        for index, port in enumerate(subset.get("ports") or ()):
            errors += check_port_number(port.get("port"), f"{path}.ports[{index}].port")
            errors += check_choice(port.get("protocol"), f"{path}.ports[{index}].protocol", PROTOCOLS)
    return errors


def validate_endpoint_slice(endpoint_slice: Json, old: Json | None) -> list[FieldError]:
    """Address type, addresses, ports and sizes; the address type stays."""
    kind = endpoint_slice.get("addressType")
    errors = check_choice(kind or "", "addressType", ("IPv4", "IPv6", "FQDN"))
    endpoints = endpoint_slice.get("endpoints") or []
    ports = endpoint_slice.get("ports") or []
    if len(endpoints) > MAX_SLICE_ENDPOINTS:
        errors.append(invalid("endpoints", len(endpoints), f"must have at most {MAX_SLICE_ENDPOINTS} items"))
    if len(ports) > MAX_SLICE_PORTS:
        errors.append(invalid("ports", len(ports), f"must have at most {MAX_SLICE_PORTS} items"))
    for index, endpoint in enumerate(endpoints):
        errors += _check_endpoint(endpoint, item_path("endpoints", index), str(kind))
    for index, port in enumerate(ports):
        path = item_path("ports", index)
        errors += check_choice(port.get("protocol"), f"{path}.protocol", PROTOCOLS)
        if port.get("name"):
            errors += check_dns_label(port["name"], f"{path}.name")
        errors += check_range(port.get("port"), f"{path}.port", 1, 65535)
    errors += check_unique((port.get("name") or "" for port in ports), "ports", "name")
    if old is not None:
        errors += check_immutable(kind, old.get("addressType"), "addressType")
    return errors


def _check_endpoint(endpoint: Json, path: str, kind: str) -> list[FieldError]:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        return [required(f"{path}.addresses", "must contain at least 1 address")]
    if len(addresses) > MAX_ADDRESSES:
        return [invalid(f"{path}.addresses", len(addresses), f"must have at most {MAX_ADDRESSES} items")]
    check = check_dns_subdomain if kind == "FQDN" else check_ip
    errors = [e for i, address in enumerate(addresses) for e in check(address, item_path(f"{path}.addresses", i))]
    target = endpoint.get("targetRef")
    if target is not None:
        errors += check_one_of(target, f"{path}.targetRef", ("name",), "a target")
    return errors
