"""xDS resources as finished bytes: serialised once, versioned by content, shared by every stream."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

TYPE_PREFIX: Final = "type.googleapis.com/"
CDS: Final = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
EDS: Final = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS: Final = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
RDS: Final = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
IN_ORDER: Final = (CDS, EDS, LDS, RDS)
"""What is referred to goes before what refers to it. Source: xDS protocol, "Eventual consistency considerations"."""
SHORT_NAMES: Final[Mapping[str, str]] = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}
_VERSION_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Resource:
    """One named resource. Equal versions mean equal bytes."""

    name: str
    version: str
    """Hash of the content; "" stands for a resource that was never built here."""
    delta_frame: bytes
    """Field `resources` of a DeltaDiscoveryResponse: tag, length, Resource{name, version, resource}."""
    sotw_frame: bytes
    """Field `resources` of a DiscoveryResponse: tag, length, Any."""
    body: bytes
    """The message itself."""
    refers_to: frozenset[str] = frozenset()
    """Clusters (of listeners and routes) or route configurations (`rds:NAME`, of listeners) that must exist with it."""


Table = Mapping[str, Resource]
"""name -> resource of one type. A table that has not changed is the same object."""


def length_delimited(field_number: int, payload: bytes) -> bytes:
    """One field of wire type 2. Source: Protocol Buffers encoding."""
    return varint(field_number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """A base-128 number, >= 0."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def resource_of(type_url: str, name: str, message: Any, refers_to: Iterable[str] = ()) -> Resource:
    """Serialise `message` (deterministically: maps by key)."""
    return resource_of_bytes(type_url, name, message.SerializeToString(deterministic=True), refers_to)


def resource_of_bytes(type_url: str, name: str, body: bytes, refers_to: Iterable[str] = ()) -> Resource:
    """A resource from a message's bytes."""
    version = hashlib.blake2b(body, digest_size=_VERSION_BYTES).hexdigest()
    packed = length_delimited(1, type_url.encode()) + length_delimited(2, body)
    framed = length_delimited(1, version.encode()) + length_delimited(2, packed) + length_delimited(3, name.encode())
    return Resource(name, version, length_delimited(2, framed), length_delimited(2, packed), body, frozenset(refers_to))


def unknown_resource(name: str, version: str) -> Resource:
    """What a client says it holds, before we know whether we would send the same."""
    return Resource(name, version, b"", b"", b"")


def same_or_new(old: Table | None, new: dict[str, Resource]) -> Table:
    """`old` itself when it holds exactly the same versions; so that unchanged tables are recognised by identity."""
    if old is None or old.keys() != new.keys():
        return new
    return old if all(old[name].version == resource.version for name, resource in new.items()) else new
