"""Three-way merge: what the manifest says comes true, what the last one said and this one does not goes, the rest stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.patch import merge_patch
from mesh.cli.applying import three_way_patch

pytestmark = pytest.mark.unit

_LEAVES = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 2), max_size=2))
_OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("xyz"), _LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), st.one_of(_LEAVES, inner), max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("last", "wanted", "current", "patch"),
    [
        pytest.param({}, {"a": 1}, {"a": 1, "b": 2}, {}, id="nothing new"),
        pytest.param({"a": 1}, {}, {"a": 1}, {"a": None}, id="dropped from the manifest"),
        pytest.param({"a": 1}, {}, {}, {}, id="dropped and already gone"),
        pytest.param({}, {"m": {"x": 1}}, {"m": {"y": 2}}, {"m": {"x": 1}}, id="added beside somebody else's field"),
        pytest.param({}, {"l": [{"n": 1}]}, {"l": [{"n": 1, "d": 0}]}, {}, id="a default inside a list item stays"),
        pytest.param({}, {"l": [1]}, {"l": [1, 2]}, {"l": [1]}, id="a list is replaced"),
        pytest.param({}, {"m": {}}, {}, {"m": {}}, id="an empty mapping is made"),
    ],
)
def test_patch(last: Any, wanted: Any, current: Any, patch: Any) -> None:
    assert three_way_patch(last, wanted, current) == patch


@given(_OBJECTS, _OBJECTS, _OBJECTS)
def test_applying_twice_changes_nothing_more(last: Any, wanted: Any, current: Any) -> None:
    once = merge_patch(current, three_way_patch(last, wanted, current))
    assert three_way_patch(last, wanted, once) == {}


@given(_OBJECTS, _OBJECTS)
def test_what_the_manifest_no_longer_says_is_gone(last: Any, wanted: Any) -> None:
    result = merge_patch(last, three_way_patch(last, wanted, last))
    assert all(key in wanted for key in last if key in result)
