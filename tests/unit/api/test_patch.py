from typing import Any

import pytest
from hypothesis import given

from mesh.api.errors import PatchError, PatchTestFailedError
from mesh.api.patch import json_patch, merge_patch, same_json
from mesh.api.tree import copy_json
from tests.unit.api.json_values import JSON, OBJECTS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [  # RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_rfc_7386(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


@given(OBJECTS, OBJECTS)
def test_merge_patch_leaves_its_arguments_alone_and_is_idempotent(target: Any, patch: Any) -> None:
    before = copy_json(target), copy_json(patch)
    once = merge_patch(target, patch)
    assert (target, patch) == before
    assert same_json(merge_patch(once, patch), once)


OBJ = {"a": {"b": [1, 2, 3]}, "m~n": 1, "x/y": 2, "": 5}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/a/c", "value": 1}], {**OBJ, "a": {"b": [1, 2, 3], "c": 1}}),
        ([{"op": "add", "path": "/a/b/1", "value": 9}], {**OBJ, "a": {"b": [1, 9, 2, 3]}}),
        ([{"op": "add", "path": "/a/b/-", "value": 9}], {**OBJ, "a": {"b": [1, 2, 3, 9]}}),
        ([{"op": "remove", "path": "/a/b/0"}], {**OBJ, "a": {"b": [2, 3]}}),
        ([{"op": "replace", "path": "/m~0n", "value": 7}], {**OBJ, "m~n": 7}),
        ([{"op": "replace", "path": "/x~1y", "value": 7}], {**OBJ, "x/y": 7}),
        ([{"op": "replace", "path": "/", "value": 7}], {**OBJ, "": 7}),
        ([{"op": "move", "from": "/a/b/0", "path": "/a/b/2"}], {**OBJ, "a": {"b": [2, 3, 1]}}),
        ([{"op": "copy", "from": "/a/b", "path": "/c"}], {**OBJ, "c": [1, 2, 3]}),
        ([{"op": "test", "path": "/a/b", "value": [1, 2, 3]}], OBJ),
        ([{"op": "replace", "path": "", "value": {"n": 1}}], {"n": 1}),
        ([{"op": "replace", "path": "/a", "value": None}], {**OBJ, "a": None}),
    ],
)
def test_json_patch_follows_rfc_6902(operations: Any, expected: Any) -> None:
    before = copy_json(OBJ)
    assert json_patch(OBJ, operations) == expected
    assert before == OBJ


@pytest.mark.parametrize(
    "operations",
    [
        {"op": "add"},
        ["x"],
        [{"op": "nope", "path": "/a"}],
        [{"op": "add", "path": "/a/z"}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": "/q/z", "value": 1}],
        [{"op": "add", "path": "/a/b/4", "value": 1}],
        [{"op": "add", "path": "/a/b/01", "value": 1}],
        [{"op": "add", "path": "/m~0n/z", "value": 1}],
        [{"op": "remove", "path": "/a/b/3"}],
        [{"op": "remove", "path": "/a/b/-"}],
        [{"op": "replace", "path": "/zz", "value": 1}],
        [{"op": "move", "from": "/a", "path": "/a/c"}],
        [{"op": "copy", "from": "/zz", "path": "/a"}],
        [{"op": "add", "path": "/a", "value": 1}] * 10_001,
        [{"op": "copy", "from": "", "path": "/a"}] * 101,
        [{"op": "copy", "from": "", "path": f"/{n}"} for n in range(40)],
        [{"op": "add", "path": "/a" * n, "value": {}} for n in range(1, 200)],
    ],
)
def test_impossible_json_patches_are_refused_as_a_whole(operations: Any) -> None:
    with pytest.raises(PatchError):
        json_patch(OBJ, operations)


def test_failed_test_operation_is_told_apart_and_true_is_not_one() -> None:
    with pytest.raises(PatchTestFailedError, match="operation 1: test"):
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 1}, {"op": "test", "path": "/a", "value": True}])


@given(OBJECTS, JSON)
def test_add_then_remove_gives_the_object_back(obj: Any, value: Any) -> None:
    obj.pop("fresh", None)
    operations = [{"op": "add", "path": "/fresh", "value": value}, {"op": "remove", "path": "/fresh"}]
    assert same_json(json_patch(obj, operations), obj)
