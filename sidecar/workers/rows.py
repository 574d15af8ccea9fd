"""One admin page out of several. Pure.

Admin pages are lists of rows (`sidecar.admin`), alone or in named sections; a column may be a list of rows again. Rows that say the same of
the same thing are one row: what is counted is summed, what differs otherwise is shown with the number of workers that say so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

SUMMED: Final = frozenset({"active_requests", "connections", "ejections"})
"""Columns in which every worker counts its own."""
VARYING: Final = frozenset(
    {
        "check",
        "check_detail",
        "degraded",
        "health",
        "health_flags",
        "healthy",
        "is_panicking",
        "latency_ms",
        "priority_load",
        "usable",
        "weight",
    }
)
"""Columns in which every worker has its own view."""

Row = Mapping[str, Any]


def merge_rows(tables: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """The rows of all workers, in the order of the first that has them."""
    groups: dict[str, list[Row]] = {}
    for rows in tables:
        for row in rows:
            groups.setdefault(_identity(row), []).append(row)
    return [_merge(group) for group in groups.values()]


def merge_documents(documents: Mapping[int, Any]) -> Any:
    """Documents of several workers, by index. What has another form than tables is shown once per worker."""
    values = list(documents.values())
    if all(_is_table(value) for value in values):
        return merge_rows(values)
    if not values or not all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return {"workers": {str(index): value for index, value in documents.items()}}
    merged: dict[str, Any] = {}
    for name in values[0]:
        parts = [value[name] for value in values]
        if all(_is_table(part) for part in parts):
            merged[name] = merge_rows(parts)
        elif all(part == parts[0] for part in parts):
            merged[name] = parts[0]
        else:
            merged[name] = {"workers": {str(index): value[name] for index, value in documents.items()}}
    return merged


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _identity(row: Row) -> str:
    return repr(
        [(name, value) for name, value in row.items() if not (name in SUMMED or name in VARYING or _is_table(value))]
    )


def _merge(group: list[Row]) -> dict[str, Any]:
    merged = dict(group[0])
    for name in merged:
        if name in SUMMED:
            merged[name] = sum(row[name] for row in group)
        elif name in VARYING:
            merged[name] = _views([row[name] for row in group])
        elif _is_table(merged[name]):
            merged[name] = merge_rows([row[name] for row in group])
    return merged


def _views(values: list[Any]) -> Any:
    """`ejected (1 of 2 workers), healthy (1 of 2 workers)`, or the one value all have."""
    counts = Counter(values)
    if len(counts) == 1:
        return values[0]
    return ", ".join(f"{value} ({count} of {len(values)} workers)" for value, count in sorted(counts.items(), key=str))
