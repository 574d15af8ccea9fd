"""What a column is, and how times, ages and lists are written in a cell."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mesh.api.resources import Json

NONE = "<none>"
UNKNOWN = "<unknown>"

Cell = str | int | float | bool | None
CellOf = Callable[[Json, float], Cell]
"""(object, wall-clock seconds) -> cell."""

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `priority` 1 is shown with `-o wide` only."""

    name: str
    cell: CellOf
    type: str = "string"
    priority: int = 0
    format: str = ""
    description: str = ""

    def definition(self) -> Json:
        """TableColumnDefinition of meta.k8s.io."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or self.name,
            "priority": self.priority,
        }


def wide(name: str, cell: CellOf, type_: str = "string") -> Column:
    """A column for `-o wide`."""
    return Column(name, cell, type_, 1)


def seconds_of(text: object) -> float | None:
    """Unix seconds of an RFC 3339 time; None when it is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def duration(seconds: float) -> str:
    """A duration as kubectl writes ages: two units while they matter."""
    s = int(seconds)
    if s < 0:
        return "0s" if s > -2 else "<invalid>"
    if s < 2 * _MINUTE:
        return f"{s}s"
    if s < 10 * _MINUTE:
        return _two(s, _MINUTE, "m", 1, "s")
    if s < 3 * _HOUR:
        return f"{s // _MINUTE}m"
    if s < 8 * _HOUR:
        return _two(s, _HOUR, "h", _MINUTE, "m")
    if s < 2 * _DAY:
        return f"{s // _HOUR}h"
    if s < 8 * _DAY:
        return _two(s, _DAY, "d", _HOUR, "h")
    if s < 2 * _YEAR:
        return f"{s // _DAY}d"
    return _two(s, _YEAR, "y", _DAY, "d") if s < 8 * _YEAR else f"{s // _YEAR}y"


def _two(seconds: int, large: int, large_unit: str, small: int, small_unit: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large}{large_unit}" + (f"{rest}{small_unit}" if rest else "")


def since(text: object, now_s: float) -> str:
    """The age of a time."""
    at = seconds_of(text)
    return UNKNOWN if at is None else duration(now_s - at)


def name(obj: Json, _now_s: float) -> Cell:
    return str(obj["metadata"].get("name", ""))


def age(obj: Json, now_s: float) -> Cell:
    return since(obj["metadata"].get("creationTimestamp"), now_s)


NAME = Column("Name", name, format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", age, description="Time since the object was created.")


def at(obj: Any, *path: str) -> Any:
    """The value at a path of keys, or None."""
    for step in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


def field(*path: str, default: Cell = NONE) -> CellOf:
    """A column's cell that is a field, or `default` when that is unset or empty."""

    def cell(obj: Json, _now_s: float) -> Cell:
        value = at(obj, *path)
        return default if value in (None, "") else value

    return cell


def count(*path: str) -> CellOf:
    """A number, 0 when unset."""
    return field(*path, default=0)


def listed(items: Iterable[str], *, limit: int = 0) -> str:
    """`a,b,c`, or `a,b,c + 2 more...` beyond `limit`."""
    all_items: Sequence[str] = [item for item in items if item]
    if not all_items:
        return NONE
    if limit and len(all_items) > limit:
        return f"{','.join(all_items[:limit])} + {len(all_items) - limit} more..."
    return ",".join(all_items)


def pairs(labels: object) -> str:
    """A map as `a=b,c=d`."""
    if not isinstance(labels, dict) or not labels:
        return NONE
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def selector_text(selector: object) -> str:
    """A LabelSelector as kubectl writes it."""
    if not isinstance(selector, dict):
        return NONE
    texts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    texts += [_expression(one) for one in selector.get("matchExpressions") or ()]
    return ",".join(texts) or NONE


def _expression(one: Json) -> str:
    key, values = one.get("key", ""), ",".join(one.get("values") or ())
    match one.get("operator"):
        case "In":
            return f"{key} in ({values})"
        case "NotIn":
            return f"{key} notin ({values})"
        case "DoesNotExist":
            return f"!{key}"
        case _:
            return str(key)


def containers(*path: str) -> Sequence[Column]:
    """The wide columns Containers and Images of a pod template."""

    def of(key: str) -> CellOf:
        return lambda obj, _now_s: listed(c.get(key, "") for c in at(obj, *path, "containers") or ())

    return wide("Containers", of("name")), wide("Images", of("image"))
