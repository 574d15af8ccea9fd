"""The small JSONPath that CustomResourceDefinitions use for columns and scale: `.spec.a.b`, `.items[0]`, filters by equality."""

import re
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>(?:[A-Za-z0-9_/-]|\\\.)+)        # .name, with \. for a dot in it
      | \[(?P<index>[0-9]+)\]                       # [0]
      | \['(?P<quoted>[^']+)'\]                     # ['name']
      | \[\?\(@\.(?P<key>[A-Za-z0-9_]+)\s*==\s*["'](?P<want>[^"']*)["']\)\]   # [?(@.type=="Ready")]
    """,
    re.VERBOSE,
)


def value_at(obj: Any, path: str) -> Any:
    """The first value at a path, or None when there is none or the path is not of this small form."""
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return None
        obj = _step(obj, match)
        if obj is None:
            return None
        position = match.end()
    return obj


def _step(obj: Any, match: re.Match[str]) -> Any:
    if match["index"] is not None:
        index = int(match["index"])
        return obj[index] if isinstance(obj, list) and index < len(obj) else None
    if match["key"] is not None:
        if not isinstance(obj, list):
            return None
        return next((one for one in obj if isinstance(one, dict) and str(one.get(match["key"])) == match["want"]), None)
    name = match["quoted"] or match["name"].replace("\\.", ".")
    return obj.get(name) if isinstance(obj, dict) else None


def keys_of(path: str) -> tuple[str, ...]:
    """The keys of a path of names only (`.spec.replicas`). Raises ValueError for any other."""
    names = path.split(".")
    if names[0] or len(names) < 2 or not all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names[1:]):
        raise ValueError(f"{path!r} is not a path like .spec.replicas")
    return tuple(names[1:])
