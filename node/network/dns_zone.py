"""What the cluster DNS answers from the Services. Pure; wire format and sockets are in `dns_server`.

Source: Kubernetes DNS-Based Service Discovery specification 1.1.0, and its short names for people.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from node.network.services import Backend, PortEntry, ServiceEntry, ServiceTable

TTL_S = 5
"""Seconds clients may keep an answer. Source: CoreDNS, kubernetes plugin."""
_REVERSE = dns.name.from_text("in-addr.arpa.")


@dataclass(frozen=True, slots=True)
class ZoneAnswer:
    """What is said to one question."""

    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()
    additional: tuple[dns.rrset.RRset, ...] = ()
    alias: dns.name.Name | None = None
    """The answer ends in this name outside the cluster; its records must be asked for."""


class ClusterZone:
    """The names of the cluster's Services."""

    def __init__(self, table: ServiceTable, *, domain: str, service_cidr: str) -> None:
        self._table = table
        self._origin = dns.name.from_text(domain + ".")
        self._services = ipaddress.IPv4Network(service_cidr)

    def resolve(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, namespace: str) -> ZoneAnswer | None:
        """The answer to one question from a pod in `namespace`; None when the name is not the cluster's to answer."""
        if name.is_subdomain(self._origin):
            return self._inside(name, name.relativize(self._origin), kind)
        if name.is_subdomain(_REVERSE):
            return self._reverse(name, kind)
        return self._short(name, kind, namespace)

    def _inside(self, name: dns.name.Name, relative: dns.name.Name, kind: dns.rdatatype.RdataType) -> ZoneAnswer:
        labels = _text_labels(relative)
        if not labels:
            soa = self._soa()
            return ZoneAnswer(dns.rcode.NOERROR, (soa,)) if kind == dns.rdatatype.SOA else self._no_data()
        if labels[-1] == "svc":
            return self._service_name(name, labels[:-1], kind)
        return self._no_such_name()

    def _short(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, namespace: str) -> ZoneAnswer | None:
        """`svc`, `svc.ns` (only when there is such a Service) and `....svc`."""
        labels = _text_labels(name)
        if len(labels) > 1 and labels[-1] == "svc":
            return self._service_name(name, labels[:-1], kind)
        if len(labels) == 1:
            labels.append(namespace)
        if len(labels) == 2 and (entry := self._table.get(labels[1], labels[0])) is not None:
            return self._records(name, entry, kind)
        return None

    def _service_name(self, name: dns.name.Name, labels: list[str], kind: dns.rdatatype.RdataType) -> ZoneAnswer:
        """`labels` stand before `svc`: [] | ns | svc.ns | host.svc.ns | _port._proto.svc.ns"""
        if not labels:
            return self._no_data()
        if len(labels) == 1:
            return self._no_data() if self._table.has_namespace(labels[0]) else self._no_such_name()
        entry = self._table.get(labels[-1], labels[-2])
        if entry is None:
            return self._no_such_name()
        match labels[:-2]:
            case []:
                return self._records(name, entry, kind)
            case [host]:
                return self._host_records(name, entry, host, kind)
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return self._srv_records(name, entry, port[1:], protocol[1:], kind)
            case _:
                return self._no_such_name()

    def _records(self, name: dns.name.Name, entry: ServiceEntry, kind: dns.rdatatype.RdataType) -> ZoneAnswer:
        if entry.external_name:
            target = dns.name.from_text(entry.external_name)
            cname = _rrset(name, "CNAME", [target.to_text()])
            return ZoneAnswer(dns.rcode.NOERROR, (cname,), alias=None if kind == dns.rdatatype.CNAME else target)
        if kind == dns.rdatatype.SRV:
            return self._srv(name, entry, entry.ports)
        addresses = sorted(entry.hosts) if entry.is_headless else [entry.cluster_ip]
        return self._addresses(name, [a for a in addresses if a], kind)

    def _addresses(self, name: dns.name.Name, addresses: list[str], kind: dns.rdatatype.RdataType) -> ZoneAnswer:
        if kind != dns.rdatatype.A or not addresses:
            return self._no_data()
        return ZoneAnswer(dns.rcode.NOERROR, (_rrset(name, "A", addresses),))

    def _host_records(
        self, name: dns.name.Name, entry: ServiceEntry, host: str, kind: dns.rdatatype.RdataType
    ) -> ZoneAnswer:
        found = [address for address in sorted(entry.hosts) if _host_label(entry, address) == host]
        if not entry.is_headless or not found:
            return self._no_such_name()
        return self._addresses(name, found, kind)

    def _srv_records(
        self, name: dns.name.Name, entry: ServiceEntry, port: str, protocol: str, kind: dns.rdatatype.RdataType
    ) -> ZoneAnswer:
        ports = [p for p in entry.ports if p.name == port and p.protocol.lower() == protocol]
        if not ports:
            return self._no_such_name()
        return self._srv(name, entry, ports) if kind == dns.rdatatype.SRV else self._no_data()

    def _srv(self, name: dns.name.Name, entry: ServiceEntry, ports: Iterable[PortEntry]) -> ZoneAnswer:
        service = self._full_name(entry)
        records: list[str] = []
        glue: dict[str, str] = {}
        for port in ports:
            for backend in port.backends if entry.is_headless else (Backend(entry.cluster_ip, port.port),):
                if backend.address:
                    label = _host_label(entry, backend.address)
                    target = f"{label}.{service}" if entry.is_headless else service
                    records.append(f"0 100 {backend.port} {target}")
                    glue[target] = backend.address
        if not records:
            return self._no_data()
        additional = tuple(_rrset(dns.name.from_text(host), "A", [address]) for host, address in glue.items())
        return ZoneAnswer(dns.rcode.NOERROR, (_rrset(name, "SRV", records),), additional=additional)

    def _reverse(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> ZoneAnswer | None:
        address = _reversed_address(name)
        if address is None:
            return None
        targets = []
        for entry in self._table.with_address(str(address)):
            if entry.cluster_ip == str(address):
                targets.append(self._full_name(entry))
            elif entry.is_headless:
                targets.append(f"{_host_label(entry, str(address))}.{self._full_name(entry)}")
        if not targets:
            return self._no_such_name() if address in self._services else None
        if kind != dns.rdatatype.PTR:
            return self._no_data()
        return ZoneAnswer(dns.rcode.NOERROR, (_rrset(name, "PTR", targets),))

    def _full_name(self, entry: ServiceEntry) -> str:
        return f"{entry.name}.{entry.namespace}.svc.{self._origin.to_text()}"

    def _soa(self) -> dns.rrset.RRset:
        origin = self._origin.to_text()
        return _rrset(self._origin, "SOA", [f"ns.dns.{origin} hostmaster.{origin} 1 7200 1800 86400 {TTL_S}"])

    def _no_data(self) -> ZoneAnswer:
        return ZoneAnswer(dns.rcode.NOERROR, authority=(self._soa(),))

    def _no_such_name(self) -> ZoneAnswer:
        return ZoneAnswer(dns.rcode.NXDOMAIN, authority=(self._soa(),))


def _host_label(entry: ServiceEntry, address: str) -> str:
    """The first label of an endpoint's own name: its hostname, or its address with dashes (as CoreDNS does)."""
    return entry.hosts.get(address) or address.replace(".", "-")


def _text_labels(name: dns.name.Name) -> list[str]:
    return [label.decode("latin-1").lower() for label in name.labels if label]


def _reversed_address(name: dns.name.Name) -> ipaddress.IPv4Address | None:
    labels = _text_labels(name)[:-2]
    try:
        return ipaddress.IPv4Address(".".join(reversed(labels))) if len(labels) == 4 else None
    except ValueError:
        return None


def _rrset(name: dns.name.Name, kind: str, values: list[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text(name, TTL_S, "IN", kind, *values)
