"""Names of Services. Source of the cases: Kubernetes DNS specification 1.1.0."""

import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from node.network.dns_zone import ClusterZone, ZoneAnswer
from node.network.services import ServiceTable
from tests.unit.node.network.tables import put_service, put_slice, ready

pytestmark = pytest.mark.unit

_PORT = {"name": "http", "port": 80, "protocol": "TCP"}


def zone() -> ClusterZone:
    table = ServiceTable()
    put_service(table, "web", "shop", clusterIP="10.96.0.5", ports=[_PORT])
    put_service(table, "db", "shop", clusterIP="None", ports=[{"name": "sql", "port": 5432, "protocol": "TCP"}])
    sql = [{"name": "sql", "port": 5432, "protocol": "TCP"}]
    put_slice(table, "db", [ready("10.244.1.2", "db-0"), ready("10.244.2.2")], sql, namespace="shop")
    put_service(table, "out", "shop", type="ExternalName", externalName="example.org")
    put_service(table, "empty", "shop", clusterIP="None", ports=[_PORT])
    return ClusterZone(table, domain="cluster.local", service_cidr="10.96.0.0/16")


def ask(name: str, kind: str = "A", namespace: str = "shop") -> ZoneAnswer | None:
    return zone().resolve(dns.name.from_text(name), dns.rdatatype.from_text(kind), namespace)


def values(name: str, kind: str = "A", namespace: str = "shop") -> list[str]:
    answer = ask(name, kind, namespace)
    assert answer is not None
    assert answer.rcode == dns.rcode.NOERROR
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


@pytest.mark.parametrize(
    "name", ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "WEB.Shop.SVC.Cluster.Local"]
)
def test_every_form_of_a_service_name_gives_its_cluster_ip(name: str) -> None:
    assert values(name) == ["10.96.0.5"]


def test_a_short_name_means_the_asking_pods_namespace() -> None:
    assert ask("web", namespace="other") is None


@pytest.mark.parametrize("name", ["example.org", "com", "web.nowhere", "a.b.c", "shop.svc.cluster.local.example.org"])
def test_other_names_are_not_the_clusters_to_answer(name: str) -> None:
    assert ask(name) is None


@pytest.mark.parametrize(
    "name",
    ["nope.shop.svc.cluster.local", "nope.shop.svc", "web.nowhere.svc.cluster.local", "nowhere.svc.cluster.local",
     "x.cluster.local", "pod.web.shop.svc.cluster.local", "_x._tcp.web.shop.svc.cluster.local"],
)  # fmt: skip
def test_missing_names_inside_the_cluster_do_not_exist(name: str) -> None:
    answer = ask(name)
    assert answer is not None
    assert answer.rcode == dns.rcode.NXDOMAIN
    assert answer.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    ("name", "kind"),
    [("web.shop.svc.cluster.local", "AAAA"), ("shop.svc.cluster.local", "A"), ("svc.cluster.local", "A"),
     ("cluster.local", "A"), ("empty.shop.svc.cluster.local", "A"), ("web.shop.svc.cluster.local", "MX")],
)  # fmt: skip
def test_existing_names_without_such_a_record_say_so(name: str, kind: str) -> None:
    answer = ask(name, kind)
    assert answer is not None
    assert (answer.rcode, answer.answer) == (dns.rcode.NOERROR, ())
    assert answer.authority[0].rdtype == dns.rdatatype.SOA


def test_headless_service_gives_its_pods() -> None:
    assert values("db.shop.svc.cluster.local") == ["10.244.1.2", "10.244.2.2"]
    assert values("db-0.db.shop.svc.cluster.local") == ["10.244.1.2"]
    assert values("10-244-2-2.db.shop.svc.cluster.local") == ["10.244.2.2"]


def test_srv_names_port_and_target() -> None:
    assert values("_http._tcp.web.shop.svc.cluster.local", "SRV") == ["0 100 80 web.shop.svc.cluster.local."]
    assert values("_sql._tcp.db.shop.svc.cluster.local", "SRV") == [
        "0 100 5432 10-244-2-2.db.shop.svc.cluster.local.",
        "0 100 5432 db-0.db.shop.svc.cluster.local.",
    ]
    answer = ask("_sql._tcp.db.shop.svc.cluster.local", "SRV")
    assert answer is not None
    assert sorted(str(rrset[0]) for rrset in answer.additional) == ["10.244.1.2", "10.244.2.2"]


def test_addresses_have_names() -> None:
    assert values("5.0.96.10.in-addr.arpa", "PTR") == ["web.shop.svc.cluster.local."]
    assert values("2.1.244.10.in-addr.arpa", "PTR") == ["db-0.db.shop.svc.cluster.local."]
    unknown = ask("99.0.96.10.in-addr.arpa", "PTR")
    assert unknown is not None
    assert unknown.rcode == dns.rcode.NXDOMAIN
    assert ask("8.8.8.8.in-addr.arpa", "PTR") is None
    assert ask("8.8.in-addr.arpa", "PTR") is None


def test_external_name_is_an_alias() -> None:
    answer = ask("out.shop.svc.cluster.local")
    assert answer is not None
    assert answer.alias == dns.name.from_text("example.org")
    assert answer.answer[0].to_text().endswith("CNAME example.org.")
