"""What a pod asks of a node. Pure.

Source: Kubernetes, "Pod sidecar containers": requests of app containers and sidecars add up; an ordinary init container runs alone
with the sidecars started before it, so the larger of the two counts.
"""

from collections.abc import Iterable, Mapping

from mesh.api.errors import QuantityError
from mesh.api.meta import Quantity
from mesh.api.pod import Container, PodSpec
from mesh.api.quantity import to_milli, to_units

CPU, MEMORY, PODS = "cpu", "memory", "pods"
Amounts = dict[str, float]
"""Resource name -> amount: cpu in millicores, memory in bytes, everything else in units."""

SCORING_CPU_MILLI = 100.0
SCORING_MEMORY_BYTES = 200.0 * 1024 * 1024
"""A container without a request counts as this much when nodes are compared. Source: kube-scheduler's non-zero requests."""


def amounts_of(quantities: Mapping[str, Quantity]) -> Amounts:
    """A resource list as numbers. A quantity nobody can read (the API server refuses those) counts as absent."""
    amounts: Amounts = {}
    for name, quantity in quantities.items():
        try:
            amounts[name] = float(to_milli(quantity) if name == CPU else to_units(quantity))
        except QuantityError:
            continue
    return amounts


def pod_requests(spec: PodSpec) -> Amounts:
    """What the pod needs on its node, one of `pods` included."""
    total = _sum(amounts_of(container.resources.requests) for container in spec.containers)
    sidecars: Amounts = {}
    largest_init: Amounts = {}
    for container in spec.init_containers:
        own = amounts_of(container.resources.requests)
        if container.is_sidecar:
            sidecars = _sum((sidecars, own))
            running = sidecars
        else:
            running = _sum((sidecars, own))
        largest_init = _larger(largest_init, running)
    needed = _larger(_sum((total, sidecars)), largest_init)
    needed = _sum((needed, amounts_of(spec.overhead)))
    needed[PODS] = 1.0
    return {name: amount for name, amount in needed.items() if amount > 0}


def scoring_requests(spec: PodSpec) -> tuple[float, float]:
    """(millicores, bytes) for comparing nodes: containers without a request count as a small default."""
    cpu = memory = 0.0
    for container in _lasting(spec):
        own = amounts_of(container.resources.requests)
        cpu += own.get(CPU, SCORING_CPU_MILLI)
        memory += own.get(MEMORY, SCORING_MEMORY_BYTES)
    return cpu, memory


def _lasting(spec: PodSpec) -> Iterable[Container]:
    yield from spec.containers
    yield from (container for container in spec.init_containers if container.is_sidecar)


def _sum(parts: Iterable[Mapping[str, float]]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _larger(left: Mapping[str, float], right: Mapping[str, float]) -> Amounts:
    return {name: max(left.get(name, 0.0), right.get(name, 0.0)) for name in left.keys() | right.keys()}
