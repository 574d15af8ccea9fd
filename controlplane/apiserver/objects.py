"""How objects lie in the store, and how stored bytes become answers without being parsed.

A stored value is the object's JSON with apiVersion, kind and metadata.resourceVersion first and the resourceVersion
left blank, because the revision is known only after the write. An answer is the same bytes with the number spliced in.
"""

import copy
from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import orjson

from controlplane.store.protocol import KeyValue
from mesh.api.resources import Json, Resource

REGISTRY = "/registry/"


def collection_prefix(resource: Resource, namespace: str = "") -> bytes:
    """Where a collection's keys start: docs/contracts.md, "Store and API server"."""
    root = f"{REGISTRY}{resource.group or 'core'}/{resource.plural}/"
    return f"{root}{namespace}/".encode() if namespace else root.encode()


def object_key(resource: Resource, namespace: str, name: str) -> bytes:
    """The key of one object; `namespace` is ignored for cluster-scoped kinds."""
    prefix = collection_prefix(resource, namespace if resource.is_namespaced else "")
    return prefix + name.encode()


def prefix_end(prefix: bytes) -> bytes:
    """The first key after every key that starts with `prefix` (which ends in `/`)."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@lru_cache(maxsize=4096)
def _head(api_version: str, kind: str) -> bytes:
    names = orjson.dumps({"apiVersion": api_version, "kind": kind})
    return names[:-1] + b',"metadata":{"resourceVersion":"'


def to_stored(resource: Resource, obj: Json) -> bytes:
    """The value to store; `resource` names the version to store it in."""
    metadata = {"resourceVersion": "", **{k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}
    rest = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}
    return orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **rest})


def to_served(stored: Resource, served: Resource, kv: KeyValue) -> bytes:
    """The answer's bytes for a stored value: revision filled in, apiVersion as asked for."""
    return splice(stored, served, kv.value, kv.mod_revision)


def splice(stored: Resource, served: Resource, value: bytes, revision: int) -> bytes:
    """`to_served` for a value and a revision that come apart (a deletion shows the last value at a new revision)."""
    head = _head(stored.api_version, stored.kind)
    if not value.startswith(head):
        return _resplice(served, value, revision)
    return b"%b%d%b" % (_head(served.api_version, served.kind), revision, value[len(head) :])


def _resplice(served: Resource, value: bytes, revision: int) -> bytes:
    """A value stored under another version (its CRD has changed since): parsed and written anew."""
    obj = cast("Json", orjson.loads(value))
    obj["apiVersion"], obj["kind"] = served.api_version, served.kind
    obj["metadata"]["resourceVersion"] = str(revision)
    return orjson.dumps(obj)


def parse(served: Resource, kv: KeyValue) -> Json:
    """A stored value as JSON data, with its resourceVersion."""
    obj = cast("Json", orjson.loads(kv.value))
    obj["apiVersion"], obj["kind"] = served.api_version, served.kind
    obj["metadata"]["resourceVersion"] = str(kv.mod_revision)
    return obj


def list_head(resource: Resource, revision: int, *, continue_token: str = "", remaining: int = 0) -> bytes:
    """A list object up to its items."""
    metadata: Json = {"resourceVersion": str(revision)}
    if continue_token:
        metadata["continue"] = continue_token
        if remaining > 0:
            metadata["remainingItemCount"] = remaining
    head = orjson.dumps({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata})
    return head[:-1] + b',"items":['


LIST_TAIL = b"]}\n"


def is_same(left: Json, right: Json) -> bool:
    """Equal but for resourceVersion."""
    return _without_version(left) == _without_version(right)


def _without_version(obj: Json) -> Json:
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    return {**obj, "metadata": metadata}


def copied(obj: Json) -> Json:
    """A deep copy: JSON data only, so a round trip is the fastest way; what JSON can't say is copied slowly."""
    try:
        return cast("Json", orjson.loads(orjson.dumps(obj)))
    except TypeError:
        return copy.deepcopy(obj)


def joined(items: Iterable[bytes]) -> bytes:
    """Items of a list, ready to stand in its brackets."""
    return b",".join(items)
