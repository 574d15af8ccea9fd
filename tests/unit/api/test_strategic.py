from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.errors import PatchError
from mesh.api.resources import DEPLOYMENTS, PODS, SERVICES, Json
from mesh.api.strategic import strategic_patch
from mesh.api.tree import copy_json
from tests.unit.api.registry import registry

pytestmark = pytest.mark.unit


def _containers(*names: str, **more: Any) -> list[Json]:
    return [{"name": name, "image": f"{name}:1", **more} for name in names]


def _pod(patch: Json, containers: list[Json] | None = None, **spec: Any) -> Json:
    obj = {"spec": {"containers": _containers("a", "b") if containers is None else containers, **spec}}
    before = copy_json(obj)
    result = strategic_patch(obj, patch, registry().node(PODS))
    assert obj == before
    return result["spec"] if isinstance(result.get("spec"), dict) else result


def test_list_elements_merge_by_key_and_new_ones_are_appended() -> None:
    spec = _pod({"spec": {"containers": [{"name": "b", "image": "b:2"}, {"name": "c", "image": "c:1"}]}})
    assert spec["containers"] == [
        {"name": "a", "image": "a:1"},
        {"name": "b", "image": "b:2"},
        {"name": "c", "image": "c:1"},
    ]


def test_nested_lists_merge_by_their_own_key() -> None:
    containers = [{"name": "a", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "name": "http"}]}]
    env = [{"name": "Y", "value": "2"}]
    ports = [{"containerPort": 80, "name": "web"}]
    spec = _pod({"spec": {"containers": [{"name": "a", "env": env, "ports": ports}]}}, containers)
    assert spec["containers"][0]["env"] == [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]
    assert spec["containers"][0]["ports"] == [{"containerPort": 80, "name": "web"}]


def test_elements_and_fields_are_deleted_by_directive_and_null() -> None:
    spec = _pod({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": None}]}})
    assert spec["containers"] == [{"name": "b"}]


def test_replace_directive_replaces_lists_and_objects() -> None:
    spec = _pod({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}})
    assert spec["containers"] == [{"name": "z"}]
    spec = _pod({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 1}}}, securityContext={"fsGroup": 2})
    assert spec["securityContext"] == {"runAsUser": 1}


def test_set_element_order_sorts_and_keeps_the_place_of_others() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new", "image": "n"}],
        }
    }
    spec = _pod(patch, _containers("a", "injected", "b"))
    assert [c["name"] for c in spec["containers"]] == ["injected", "b", "new", "a"]


def test_set_element_order_alone_reorders() -> None:
    spec = _pod({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}})
    assert [c["name"] for c in spec["containers"]] == ["b", "a"]


def test_primitive_lists_merge_as_sets_and_lose_elements_by_directive() -> None:
    obj = {"metadata": {"finalizers": ["x", "y"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["y", "z"]}}
    assert strategic_patch(obj, patch, registry().node(PODS)) == {"metadata": {"finalizers": ["y", "z"]}}


def test_atomic_lists_and_unions_are_replaced() -> None:
    spec = _pod({"spec": {"tolerations": [{"key": "b"}]}}, tolerations=[{"key": "a"}])
    assert spec["tolerations"] == [{"key": "b"}]
    obj = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_patch(obj, patch, registry().node(DEPLOYMENTS)) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_service_ports_merge_by_port() -> None:
    obj = {"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    result = strategic_patch(obj, patch, registry().node(SERVICES))
    assert result["spec"]["ports"] == [{"port": 80, "nodePort": 30080, "targetPort": 8080}, {"port": 443}]


def test_directives_and_nulls_never_reach_new_values() -> None:
    spec = _pod(
        {"spec": {"volumes": [{"name": "v", "emptyDir": {}, "$retainKeys": ["name", "emptyDir"], "secret": None}]}}
    )
    assert spec["volumes"] == [{"name": "v", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("patch", "problem"),
    [
        ([], "is an object"),
        ({"spec": {"$patch": "explode"}}, r"spec: unknown \$patch"),
        ({"spec": {"containers": [{"image": "x"}]}}, 'merge key "name"'),
        ({"spec": {"containers": ["x"]}}, "must be an object"),
        ({"spec": {"$retainKeys": "x"}}, "list of field names"),
        ({"spec": {"$retainKeys": [], "hostname": "x"}}, r"spec.hostname: is set, but missing"),
        ({"spec": {"$setElementOrder/containers": "x", "containers": []}}, "must be a list"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}, "list of values"),
    ],
)
def test_senseless_patches_are_refused(patch: Any, problem: str) -> None:
    with pytest.raises(PatchError, match=problem):
        _pod(patch)


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(NAMES, NAMES)
def test_patching_twice_changes_nothing_more(old: list[str], new: list[str]) -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": name} for name in new],
            "containers": [{"name": name, "image": "2"} for name in new],
        }
    }
    node = registry().node(PODS)
    once = strategic_patch({"spec": {"containers": _containers(*old)}}, patch, node)
    assert strategic_patch(once, patch, node) == once
    names = [c["name"] for c in once["spec"]["containers"]]
    assert sorted(names) == sorted({*old, *new})
    assert [name for name in names if name in new] == new
