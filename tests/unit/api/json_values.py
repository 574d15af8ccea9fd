"""Hypothesis strategies for JSON."""

from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(max_size=12)
KEYS = st.text(alphabet="abcdefgh-._/$ :#'\"0", min_size=1, max_size=6)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSON: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=5)
