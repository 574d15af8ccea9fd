"""Cluster IPs and node ports, and the service every cluster has."""

import asyncio
from pathlib import Path

import pytest

from controlplane.apiserver.objects import prefix_end
from mesh.net.loop import run
from tests.component.apiserver_harness import SERVICES, api_server, service

pytestmark = pytest.mark.component

RANGES = b"/registry/ranges/"


def test_addresses_are_unique_kept_and_given_back(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await asyncio.gather(*(api.admin.created(SERVICES, service(f"s{n}")) for n in range(20)))
            addresses = [one["spec"]["clusterIP"] for one in made]
            assert len(set(addresses)) == 20
            assert made[0]["spec"]["clusterIPs"] == [addresses[0]]
            renewed = await api.admin("PUT", f"{SERVICES}/s0", service("s0", sessionAffinity="ClientIP"))
            assert renewed.body["spec"]["clusterIP"] == addresses[0]
        async with api_server(tmp_path) as api:
            taken = await api.admin("POST", SERVICES, service("late", clusterIP=addresses[0]))
            assert (taken.status, taken.fields) == (422, ["spec.clusterIP"])
            assert "default/s0" in taken.message
            await api.admin("DELETE", f"{SERVICES}/s0")
            assert (await api.admin("POST", SERVICES, service("late", clusterIP=addresses[0]))).status == 201

    run(check())


def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            for address in ("10.200.0.1", "nonsense", "10.96.0.1"):
                answer = await api.admin("POST", SERVICES, service("s", clusterIP=address))
                assert (answer.status, answer.fields) == (422, ["spec.clusterIP"]), address
            headless = await api.admin.created(SERVICES, service("h", clusterIP="None"))
            assert headless["spec"]["clusterIP"] == "None"

    run(check())


def test_a_full_range_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path, service_cidr="10.96.0.0/27") as api:
            answers = [await api.admin("POST", SERVICES, service(f"s{n}")) for n in range(16)]
            statuses = [answer.status for answer in answers]
            assert statuses == [201] * 15 + [500]
            assert "no free cluster IP" in answers[-1].message
            assert (await api.admin("GET", f"{SERVICES}/s15")).status == 404

    run(check())


def test_node_ports(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            made = await api.admin.created(SERVICES, service("a", type="NodePort"))
            port = made["spec"]["ports"][0]["nodePort"]
            assert 30000 <= port <= 32767
            same = service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}])
            assert (await api.admin("POST", SERVICES, same)).fields == ["spec.ports[0].nodePort"]
            outside = service("b", type="NodePort", ports=[{"port": 80, "nodePort": 80}])
            assert (await api.admin("POST", SERVICES, outside)).status == 422
            kept = await api.admin("PUT", f"{SERVICES}/a", service("a", type="NodePort"))
            assert kept.body["spec"]["ports"][0]["nodePort"] == port
            inside = await api.admin("PUT", f"{SERVICES}/a", service("a", type="ClusterIP"))
            assert "nodePort" not in inside.body["spec"]["ports"][0]
            assert (await api.admin("POST", SERVICES, same)).status == 201

    run(check())


def test_deleting_services_empties_the_ranges(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            held = service("held", type="NodePort")
            held["metadata"]["finalizers"] = ["example.com/hold"]
            await api.admin.created(SERVICES, held)
            await api.admin("DELETE", f"{SERVICES}/held")
            before = (await api.store.range(RANGES, prefix_end(RANGES))).count
            assert before == 3  # default/kubernetes and the two that are still held
            await api.admin.patch(f"{SERVICES}/held", {"metadata": {"finalizers": []}})
            assert (await api.store.range(RANGES, prefix_end(RANGES))).count == 1

    run(check())


def test_the_cluster_has_its_own_service(tmp_path: Path) -> None:
    async def check() -> None:
        async with api_server(tmp_path) as api:
            own = (await api.admin("GET", f"{SERVICES}/kubernetes")).body
            assert own["spec"]["clusterIP"] == "10.96.0.1"
        async with api_server(tmp_path, cluster_address="127.0.0.1") as api:
            # A restart takes another port: what points to the server follows.
            endpoints = (await api.admin("GET", "/api/v1/namespaces/default/endpoints/kubernetes")).body
            assert endpoints["subsets"][0]["ports"][0]["port"] == api.server.addresses[0][1]
            slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
            assert (await api.admin("GET", slices)).body["ports"][0]["port"] == api.server.addresses[0][1]

    run(check())
