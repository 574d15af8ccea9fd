"""Stored bytes become answers without being parsed: the same objects as if they were."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.objects import (
    collection_prefix,
    object_key,
    parse,
    prefix_end,
    splice,
    to_served,
    to_stored,
)
from controlplane.apiserver.watching import ADDED, DELETED, MODIFIED, change_of
from controlplane.store.protocol import Event, EventType, KeyValue, Revision
from mesh.api.resources import CONFIG_MAPS, NODES, VIRTUAL_SERVICES, Json

pytestmark = pytest.mark.unit

KINDS = KindRegistry.builtin()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _kv(value: bytes, revision: int = 7, created: int = 1) -> KeyValue:
    return KeyValue(b"k", value, Revision(created), Revision(revision), 1)


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=4), st.integers(2, 2**40))
def test_splicing_is_parsing_and_writing(data: dict[str, Any], revision: int) -> None:
    obj: Json = {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": data}
    kv = _kv(to_stored(CONFIG_MAPS, obj), revision)
    served = orjson.loads(to_served(CONFIG_MAPS, CONFIG_MAPS, kv))
    assert served == parse(CONFIG_MAPS, kv)
    assert served["metadata"] == {"name": "a", "labels": {"x": "y"}, "resourceVersion": str(revision)}
    assert served["data"] == data


def test_another_served_version_only_changes_the_api_version() -> None:
    kind = KINDS.find("networking.istio.io", "v1beta1", "virtualservices")
    assert kind is not None
    value = to_stored(kind.stored, {"metadata": {"name": "a"}, "spec": {"hosts": ["h"]}})
    assert (
        orjson.loads(splice(VIRTUAL_SERVICES, kind.resource, value, 5))["apiVersion"] == "networking.istio.io/v1beta1"
    )


def test_a_value_of_an_unexpected_shape_is_still_served() -> None:
    value = orjson.dumps({"metadata": {"name": "a"}, "kind": "ConfigMap", "apiVersion": "v0"})
    assert orjson.loads(splice(CONFIG_MAPS, CONFIG_MAPS, value, 5)) == {
        "metadata": {"name": "a", "resourceVersion": "5"},
        "kind": "ConfigMap",
        "apiVersion": "v1",
    }


def test_keys() -> None:
    assert object_key(CONFIG_MAPS, "default", "a") == b"/registry/core/configmaps/default/a"
    assert object_key(NODES, "ignored", "n") == b"/registry/core/nodes/n"
    start, end = collection_prefix(CONFIG_MAPS, "a"), prefix_end(collection_prefix(CONFIG_MAPS, "a"))
    assert start <= object_key(CONFIG_MAPS, "a", "z") < end
    assert not start <= object_key(CONFIG_MAPS, "a-b", "z") < end


def _event(type_: EventType, now: str, before: str | None, *, is_new: bool = False) -> Event:
    previous = None if before is None else _kv(before.encode(), 5)
    return Event(type_, _kv(now.encode(), 7, 7 if is_new else 1), previous)


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (_event(EventType.PUT, "in", None, is_new=True), ADDED),
        (_event(EventType.PUT, "out", None, is_new=True), None),
        (_event(EventType.PUT, "in", "in"), MODIFIED),
        (_event(EventType.PUT, "in", "out"), ADDED),
        (_event(EventType.PUT, "out", "in"), DELETED),
        (_event(EventType.PUT, "out", "out"), None),
        (_event(EventType.PUT, "in", None), MODIFIED),
        (_event(EventType.DELETE, "", "in"), DELETED),
        (_event(EventType.DELETE, "", "out"), None),
        (_event(EventType.DELETE, "", None), None),
    ],
)
def test_what_a_selective_watcher_sees(event: Event, seen: str | None) -> None:
    change = change_of(event, lambda kv: kv.value == b"in")
    assert (None if change is None else change[0]) == seen


def test_a_watcher_of_everything_sees_everything() -> None:
    assert change_of(_event(EventType.PUT, "x", None, is_new=True), None) == (ADDED, _kv(b"x", 7, 7))
    assert change_of(_event(EventType.DELETE, "", "x"), None) == (DELETED, _kv(b"x", 5))
