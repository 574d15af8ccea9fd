"""A small world for the tests of this folder: two versions of `web`, a database, a client namespace."""

from typing import Any

from google.protobuf import any_pb2

from controlplane.discovery.builder import Builder
from controlplane.discovery.config import MeshSettings
from controlplane.discovery.facts import pod_facts, service_facts, slice_facts
from controlplane.discovery.resources import CDS, EDS, LDS, RDS
from controlplane.discovery.snapshot import Scope, Snapshot, Tables
from controlplane.discovery.world import World
from mesh.api.core import Service
from mesh.api.discovery import EndpointSlice
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.pod import Pod
from mesh.api.resources import Json
from sidecar.config import Snapshot as SidecarSnapshot
from sidecar.decode.assembly import Assembly

WEB = "web.shop.svc.cluster.local"
SCOPE = Scope(namespace="shop")
NO_INTERCEPTION = Scope(namespace="shop", intercepts=False)
HTTP = {"name": "http", "port": 80, "targetPort": 8080}


def put_service(world: World, name: str, address: str, *ports: Json, namespace: str = "shop", **spec: Any) -> None:
    obj = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": list(ports) or [HTTP], "selector": {"app": name}, **spec},
    }
    world.put_service((namespace, name), service_facts(Service.of(obj), world.domain))


def put_pod(world: World, name: str, app: str, *, leaving: bool = False, **labels: str) -> None:
    meta: Json = {"name": name, "namespace": "shop", "labels": {"app": app, **labels}}
    if leaving:
        meta["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    ports = [{"name": "http", "containerPort": 8080}]
    obj = {"metadata": meta, "spec": {"nodeName": "node-1", "containers": [{"name": "app", "ports": ports}]}}
    world.put_pod(("shop", name), pod_facts(Pod.of(obj), obj))


def put_slice(world: World, service: str, *members: tuple[str, str], port: int = 8080, port_name: str = "http") -> None:
    """(address, pod) of every ready endpoint."""
    obj = {
        "metadata": {"name": service, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": port_name, "port": port}],
        "endpoints": [
            {"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}, "conditions": {"ready": True}}
            for address, pod in members
        ],
    }
    world.put_slice(("shop", service), slice_facts(EndpointSlice.of(obj)))


def put_rule(world: World, generation: int = 1, **spec: Any) -> None:
    meta = {"name": "web", "namespace": "shop", "generation": generation}
    world.put_destination_rule(("shop", "web"), DestinationRule.of({"metadata": meta, "spec": {"host": "web", **spec}}))


def put_routes(
    world: World, *routes: Json, name: str = "web", generation: int = 1, created: str = "1", **spec: Any
) -> None:
    meta = {
        "name": name,
        "namespace": "shop",
        "generation": generation,
        "creationTimestamp": created,
        "annotations": {"meshwork.dev/source": "web.yaml:14"},
    }
    obj = {"metadata": meta, "spec": {"hosts": ["web"], "http": list(routes), **spec}}
    world.put_virtual_service(("shop", name), VirtualService.of(obj))


def to(subset: str = "", weight: int = 100, host: str = "web") -> Json:
    return {"destination": {"host": host, "subset": subset}, "weight": weight}


def small_world() -> World:
    world = World()
    put_service(world, "web", "10.96.0.10")
    put_service(world, "db", "10.96.0.11", {"name": "tcp", "port": 5432})
    put_service(world, "odd", "10.96.0.12", {"port": 9000, "targetPort": "http"})
    put_service(world, "web", "10.96.0.13", namespace="other")
    put_pod(world, "web-1", "web", version="v1")
    put_pod(world, "web-2", "web", version="v2")
    put_slice(world, "web", ("10.244.1.2", "web-1"), ("10.244.1.3", "web-2"))
    subsets = [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]
    put_rule(world, subsets=subsets, trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 3}})
    put_routes(world, {"name": "split", "route": [to("v1", 90), to("v2", 10)]})
    return world


class Built:
    """A builder and its last snapshot."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.builder = Builder(world, MeshSettings())
        self.snapshot = Snapshot(serial=0)

    def build(self, *scopes: Scope) -> Tables:
        """The tables of the first scope, from what is dirty."""
        dirty = self.world.take_dirty()
        if dirty.has_new_policies or self.snapshot.serial == 0:
            self.builder.settle_policies()
        wanted = scopes or (SCOPE,)
        self.snapshot = self.builder.build(dirty, wanted)
        return self.snapshot.scopes[wanted[0]]


def as_sidecar_sees(tables: Tables) -> SidecarSnapshot:
    """Decoded by the sidecar's own strict decoder."""
    assembly = Assembly()
    for type_url in (CDS, EDS, LDS, RDS):
        for name, resource in tables[type_url].items():
            assembly.put(type_url, name, any_pb2.Any(type_url=type_url, value=resource.body))
    snapshot = assembly.snapshot()
    assert snapshot is not None
    return snapshot
