"""The columns of Services, Endpoints and EndpointSlices."""

from collections.abc import Iterator

from controlplane.apiserver.tables.columns import AGE, NAME, NONE, Cell, Column, at, field, listed, pairs, wide
from mesh.api.resources import Json

_SHOWN = 3
"""Addresses shown before `+ N more...`."""


def _external(service: Json, _now_s: float) -> Cell:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or NONE)
    addresses = list(spec.get("externalIPs") or ())
    if spec.get("type") == "LoadBalancer":
        ingress = at(service, "status", "loadBalancer", "ingress") or ()
        addresses += [one.get("ip") or one.get("hostname", "") for one in ingress]
        return listed(addresses) if addresses else "<pending>"
    return listed(addresses)


def _ports(service: Json, _now_s: float) -> Cell:
    return listed(_port(port) for port in at(service, "spec", "ports") or ())


def _port(port: Json) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node_port}/{port.get('protocol') or 'TCP'}"


def _selector(service: Json, _now_s: float) -> Cell:
    return pairs(at(service, "spec", "selector"))


SERVICES_COLUMNS = (
    NAME,
    Column("Type", field("spec", "type")),
    Column("Cluster-IP", field("spec", "clusterIP")),
    Column("External-IP", _external),
    Column("Port(s)", _ports),
    AGE,
    wide("Selector", _selector),
)


def _addresses(endpoints: Json) -> Iterator[str]:
    for subset in endpoints.get("subsets") or ():
        for address in subset.get("addresses") or ():
            for port in subset.get("ports") or ():
                yield _joined(address.get("ip", ""), port.get("port"))


def _joined(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _endpoints(endpoints: Json, _now_s: float) -> Cell:
    return listed(_addresses(endpoints), limit=_SHOWN)


ENDPOINTS_COLUMNS = (NAME, Column("Endpoints", _endpoints), AGE)


def _slice_ports(one: Json, _now_s: float) -> Cell:
    ports = one.get("ports") or ()
    return listed((str(port.get("port") or "*") for port in ports), limit=_SHOWN) if ports else "<unset>"


def _slice_addresses(one: Json, _now_s: float) -> Cell:
    addresses = (a for endpoint in one.get("endpoints") or () for a in endpoint.get("addresses") or ())
    text = listed(addresses, limit=_SHOWN)
    return "<unset>" if text == NONE else text


ENDPOINT_SLICES_COLUMNS = (
    NAME,
    Column("AddressType", field("addressType")),
    Column("Ports", _slice_ports),
    Column("Endpoints", _slice_addresses),
    AGE,
)
