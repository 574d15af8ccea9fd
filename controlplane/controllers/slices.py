"""Packs endpoints into EndpointSlices so that a change of one pod touches one slice. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.controllers.endpoints import PortKey, port_list
from mesh.api.discovery import SERVICE_NAME_LABEL
from mesh.api.resources import Json

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOwner:
    """Whose slices these are."""

    name: str
    """The Service's."""
    namespace: str
    reference: Json
    """The controller's ownerReference."""
    managed_by: str
    labels: Mapping[str, str]
    """Copied onto each slice."""


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """Writes, in the order they should be made: new addresses appear before old slices go."""

    create: tuple[Json, ...]
    update: tuple[Json, ...]
    """Whole objects, with the resourceVersion they were planned from."""
    delete: tuple[Json, ...]


def plan_slices(
    owner: SliceOwner, wanted: Mapping[PortKey, Sequence[Json]], existing: Sequence[Json], max_per_slice: int
) -> SlicePlan:
    """Bring `existing` slices (of this owner and manager) to hold the `wanted` endpoints (EndpointSlice.endpoints entries).

    An endpoint stays in the slice it is in; new ones fill slices with room, fullest first; empty slices go, except the last.
    """
    free = {_ports_of(item): [] for item in existing}  # type: dict[PortKey, list[Json]]
    for item in sorted(existing, key=lambda item: str(item["metadata"]["name"])):
        free[_ports_of(item)].append(item)
    create: list[Json] = []
    update: list[Json] = []
    kept: list[Json] = []
    taken = {str(item["metadata"]["name"]) for item in existing}
    for ports, endpoints in sorted(wanted.items()):
        contents, new = _pack(endpoints, free.pop(ports, []), max_per_slice)
        for item, members in contents:
            if members:
                kept.append(item)
                update += _updated(owner, item, members)
        create += [_slice(owner, ports, members, taken) for members in new]
    stale = [item for item in existing if not any(item is one for one in kept)]
    if not kept and not create and stale:
        last = stale.pop(0)  # one empty slice stays, so that readers see "no endpoints" and not "unknown"
        update += _updated(owner, last, [])
    if not existing and not create:
        create.append(_slice(owner, (), [], taken))
    return SlicePlan(tuple(create), tuple(update), tuple(stale))


def _pack(
    endpoints: Sequence[Json], slices: Sequence[Json], max_per_slice: int
) -> tuple[list[tuple[Json, list[Json]]], list[list[Json]]]:
    """(existing slices with their new members, members of new slices)."""
    by_address = {endpoint["addresses"][0]: endpoint for endpoint in endpoints}
    contents: list[tuple[Json, list[Json]]] = []
    for item in slices:
        members = []
        for endpoint in item.get("endpoints") or []:
            current = by_address.pop(endpoint["addresses"][0], None)
            if current is not None:
                members.append(current)
        contents.append((item, members))
    waiting = list(by_address.values())
    for _, members in sorted(contents, key=lambda pair: -len(pair[1])):
        room = max_per_slice - len(members)
        if room > 0 and waiting:
            members += waiting[:room]
            waiting = waiting[room:]
    chunks = [waiting[at : at + max_per_slice] for at in range(0, len(waiting), max_per_slice)]
    return contents, chunks


def _updated(owner: SliceOwner, item: Json, members: list[Json]) -> list[Json]:
    labels = {**(item["metadata"].get("labels") or {}), **_labels(owner)}
    if members == (item.get("endpoints") or []) and labels == item["metadata"].get("labels"):
        return []
    return [{**item, "metadata": {**item["metadata"], "labels": labels}, "endpoints": members}]


def _slice(owner: SliceOwner, ports: PortKey, members: list[Json], taken: set[str]) -> Json:
    name = _name(owner, ports, taken)
    taken.add(name)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": _labels(owner),
            "ownerReferences": [owner.reference],
        },
        "addressType": "IPv4",
        "endpoints": members,
        "ports": port_list(ports),
    }


def _name(owner: SliceOwner, ports: PortKey, taken: set[str]) -> str:
    """A name that comes out the same when the same write is planned again from an old cache: then it already exists.

    DEVIATION: Kubernetes generates names by chance, and can make a slice twice.
    """
    number = 0
    while True:
        text = f"{owner.reference.get('uid')}/{owner.managed_by}/{ports}/{number}"
        name = f"{owner.name[:240]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
        if name not in taken:
            return name
        number += 1


def _labels(owner: SliceOwner) -> dict[str, str]:
    return {**owner.labels, SERVICE_NAME_LABEL: owner.name, MANAGED_BY: owner.managed_by}


def _ports_of(item: Mapping[str, Any]) -> PortKey:
    ports = [
        (p.get("name") or "", p.get("protocol") or "TCP", p.get("port") or 0, p.get("appProtocol") or "")
        for p in item.get("ports") or []
    ]
    return tuple(sorted(ports))
