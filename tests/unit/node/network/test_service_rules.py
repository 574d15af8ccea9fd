"""The nft text of ClusterIPs. That nft takes it, and what it does, is tested in component/test_node_network.py."""

import pytest

from node.network.service_rules import Target, VirtualPort, changed_rules, full_rules, targets_of
from node.network.services import Backend, ServiceTable
from tests.unit.node.network.tables import put_service, put_slice, ready

pytestmark = pytest.mark.unit

_WEB = VirtualPort("tcp", "10.96.0.5", 80)
_ONE = Target((Backend("10.244.1.2", 8080),))
_TWO = Target((Backend("10.244.1.2", 8080), Backend("10.244.2.2", 8080)))


def test_services_without_endpoints_and_the_dns_address_have_no_target() -> None:
    table = ServiceTable()
    port = [{"port": 53, "protocol": "TCP"}]
    for name, address in (
        ("web", "10.96.0.5"),
        ("empty", "10.96.0.6"),
        ("kube-dns", "10.96.0.10"),
        ("bad", "x; flush"),
    ):
        put_service(table, name, clusterIP=address, ports=port)
        if name != "empty":
            put_slice(table, name, [ready("10.244.1.2")], port)
    assert set(targets_of(table.all(), dns_address="10.96.0.10")) == {VirtualPort("tcp", "10.96.0.5", 53)}


def test_nothing_changed_means_no_transaction() -> None:
    assert changed_rules({_WEB: _TWO}, {_WEB: _TWO}) == ""


def test_a_new_port_gets_its_chain_before_the_map_leads_to_it() -> None:
    lines = changed_rules({}, {_WEB: _TWO}).splitlines()
    assert [line.split()[:2] for line in lines] == [["add", "chain"], ["add", "rule"], ["add", "element"]]
    assert "numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }" in lines[1]


def test_changed_endpoints_rewrite_one_chain_only() -> None:
    other = VirtualPort("udp", "10.96.0.6", 53)
    text = changed_rules({_WEB: _TWO, other: _ONE}, {_WEB: _ONE, other: _ONE})
    assert text == (
        f"flush chain ip meshwork_services {_WEB.chain}\n"
        f"add rule ip meshwork_services {_WEB.chain} meta l4proto tcp dnat to 10.244.1.2:8080\n"
    )


def test_a_gone_port_leaves_the_map_before_its_chain_goes() -> None:
    lines = changed_rules({_WEB: _ONE}, {}).splitlines()
    assert [line.split()[:2] for line in lines] == [["delete", "element"], ["flush", "chain"], ["delete", "chain"]]


def test_client_affinity_hashes_the_client() -> None:
    assert "jhash ip saddr mod 2" in changed_rules({}, {_WEB: Target(_TWO.backends, by_client_address=True)})


def test_full_rules_replace_the_table_in_the_same_text() -> None:
    text = full_rules({_WEB: _ONE}, service_cidr="10.96.0.0/16", dns_address="10.96.0.10", pod_cidr="10.244.1.0/24")
    assert text.startswith("table ip meshwork_services\ndelete table ip meshwork_services\n")
    assert "10.244.1.2 . 10.244.1.2" in text
    assert "10.244.1.1 . 10.244.1.1" not in text
    assert text.endswith(changed_rules({}, {_WEB: _ONE}))
