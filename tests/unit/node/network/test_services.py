"""Services joined with their EndpointSlices."""

import pytest

from mesh.client.informer import Change, ChangeType
from node.network.services import Backend, ServiceKey, ServiceTable
from tests.unit.node.network.tables import endpoint_slice, put_service, put_slice, ready, terminating

pytestmark = pytest.mark.unit

_HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def table_with(endpoints: list[object]) -> ServiceTable:
    table = ServiceTable()
    put_service(table, "web", clusterIP="10.96.0.5", ports=[_HTTP])
    put_slice(table, "web", endpoints, [{"name": "http", "port": 8080, "protocol": "TCP"}])
    return table


def backends(table: ServiceTable) -> tuple[Backend, ...]:
    entry = table.get("default", "web")
    assert entry is not None
    return entry.ports[0].backends


def test_ready_endpoints_are_used_and_terminating_ones_are_not() -> None:
    assert backends(table_with([ready("10.244.1.3"), terminating("10.244.1.2")])) == (Backend("10.244.1.3", 8080),)


def test_serving_terminating_endpoints_are_used_when_nothing_is_ready() -> None:
    assert backends(table_with([terminating("10.244.1.2")])) == (Backend("10.244.1.2", 8080),)


def test_unready_endpoints_are_not_used() -> None:
    assert backends(table_with([{"addresses": ["10.244.1.2"], "conditions": {"ready": False}}])) == ()


def test_ports_match_by_name_and_protocol() -> None:
    table = ServiceTable()
    put_service(table, "web", clusterIP="10.96.0.5", ports=[_HTTP])
    ports = [{"name": "http", "port": 53, "protocol": "UDP"}, {"name": "admin", "port": 9000, "protocol": "TCP"}]
    put_slice(table, "web", [ready("10.244.1.2")], ports)
    assert backends(table) == ()


def test_slices_of_one_service_add_up_and_leave_one_by_one() -> None:
    table = table_with([ready("10.244.1.2")])
    more = put_slice(
        table, "web-2", [ready("10.244.2.2")], [{"name": "http", "port": 8080, "protocol": "TCP"}], service="web"
    )
    assert [b.address for b in backends(table)] == ["10.244.1.2", "10.244.2.2"]
    assert [e.name for e in table.with_address("10.244.2.2")] == ["web"]
    table.on_slice(Change(ChangeType.DELETED, more, None))
    assert [b.address for b in backends(table)] == ["10.244.1.2"]
    assert table.with_address("10.244.2.2") == ()


def test_a_slice_may_come_before_its_service_and_move_to_another() -> None:
    table = ServiceTable()
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    old = put_slice(table, "s", [ready("10.244.1.2")], [port], service="web")
    put_service(table, "web", clusterIP="10.96.0.5", ports=[_HTTP])
    put_service(table, "other", clusterIP="10.96.0.6", ports=[_HTTP])
    assert len(backends(table)) == 1
    moved = endpoint_slice("s", [ready("10.244.1.2")], [port], service="other")
    table.on_slice(Change(ChangeType.MODIFIED, old, moved))
    assert backends(table) == ()
    other = table.get("default", "other")
    assert other is not None
    assert len(other.ports[0].backends) == 1


def test_listeners_hear_of_real_changes_only() -> None:
    table = table_with([ready("10.244.1.2")])
    heard: list[ServiceKey] = []
    table.subscribe(heard.append)
    put_service(table, "web", clusterIP="10.96.0.5", ports=[_HTTP])
    assert heard == []
    put_service(table, "web", clusterIP="10.96.0.5", ports=[_HTTP], sessionAffinity="ClientIP")
    assert heard == [("default", "web")]


def test_headless_and_external_services_have_no_cluster_ip() -> None:
    table = ServiceTable()
    put_service(table, "db", clusterIP="None", ports=[_HTTP])
    put_service(table, "out", type="ExternalName", externalName="example.org")
    db, out = table.get("default", "db"), table.get("default", "out")
    assert db is not None
    assert out is not None
    assert (db.cluster_ip, db.is_headless, out.cluster_ip, out.external_name) == ("", True, "", "example.org")
