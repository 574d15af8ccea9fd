"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386) on API objects. Strategic merge: `mesh.api.strategic`.

Entry points: `json_patch(obj, operations)` and `merge_patch(obj, patch)`; both leave their arguments alone.
"""

from typing import Any

from mesh.api.errors import PatchError, PatchTestFailedError
from mesh.api.tree import copy_json, is_deeper, node_count

MAX_OPERATIONS = 10_000
"""A longer JSON patch is refused. Source: kube-apiserver's limit."""

MAX_COPIED_VALUES = 100_000
"""The `copy` operations of one patch may copy this many values together: repeated copies of the root would grow without bound."""
MAX_DEPTH = 100
"""A patch must not nest the object deeper."""


def merge_patch(obj: Any, patch: Any) -> Any:
    """RFC 7386: objects merge, null removes, everything else replaces. Neither argument is changed."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge_patch(result.get(key), value)
        else:
            result[key] = copy_json(value)
    return result


def json_patch(obj: Any, operations: Any) -> Any:
    """RFC 6902: apply the operations in order to a copy of `obj`; all or nothing.

    Raises PatchTestFailedError when a `test` does not hold, PatchError when the patch is malformed or points nowhere; both name
    the operation's index.
    """
    if not isinstance(operations, list):
        raise PatchError(
            "a JSON patch is a list of operations, such as [{op: replace, path: /spec/replicas, value: 2}]"
        )
    if len(operations) > MAX_OPERATIONS:
        raise PatchError(f"JSON patch of {len(operations)} operations: at most {MAX_OPERATIONS} are taken")
    document, copier = copy_json(obj), _Copier()
    for index, operation in enumerate(operations):
        try:
            document = _apply(document, operation, copier)
        except PatchTestFailedError as exc:
            raise PatchTestFailedError(f"operation {index}: {exc}") from None
        except PatchError as exc:
            raise PatchError(f"operation {index}: {exc}") from None
    if is_deeper(document, MAX_DEPTH):
        raise PatchError(f"the patch nests the object deeper than {MAX_DEPTH} levels")
    return document


class _Copier:
    """Carries out `copy` operations within one budget for the whole patch."""

    def __init__(self) -> None:
        self._left = MAX_COPIED_VALUES

    def copy(self, value: Any) -> Any:
        self._left -= node_count(value, self._left + 1)
        if self._left < 0:
            raise PatchError(f"the patch copies more than {MAX_COPIED_VALUES} values")
        if is_deeper(value, MAX_DEPTH):
            raise PatchError(f"the value to copy is nested deeper than {MAX_DEPTH} levels")
        return copy_json(value)


def _apply(document: Any, operation: Any, copier: _Copier) -> Any:
    if not isinstance(operation, dict):
        raise PatchError("an operation is an object with op and path")
    path = _pointer(operation, "path")
    match operation.get("op"):
        case "add":
            return _add(document, path, copy_json(_value(operation)))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            _get(document, path)
            return _set(document, path, copy_json(_value(operation)))
        case "move":
            source = _pointer(operation, "from")
            if path[: len(source)] == source and path != source:
                raise PatchError("cannot move a value into itself")
            document, moved = _remove(document, source)
            return _add(document, path, moved)
        case "copy":
            return _add(document, path, copier.copy(_get(document, _pointer(operation, "from"))))
        case "test":
            if not same_json(_get(document, path), _value(operation)):
                raise PatchTestFailedError(f'test of "{operation["path"]}" failed: the value is another')
            return document
        case other:
            raise PatchError(f"unknown op {other!r}: use add, remove, replace, move, copy or test")


def same_json(left: Any, right: Any) -> bool:
    """Equal as JSON: unlike Python, true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(v, right[k]) for k, v in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same_json(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError(f"op {operation['op']} needs a value")
    return operation["value"]


def _pointer(operation: dict[str, Any], field: str) -> list[str]:
    text = operation.get(field)
    if not isinstance(text, str):
        raise PatchError(f'"{field}" must be a JSON pointer such as /spec/replicas')
    if text == "":
        return []
    if not text.startswith("/"):
        raise PatchError(f'"{field}" {text!r} is no JSON pointer: it must start with /')
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(part: str, length: int, path: list[str]) -> int:
    if part == "-":
        return length
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0") or len(part) > 9:
        raise PatchError(f'"{_text(path)}": {part!r} is no list index')
    return int(part)


def _text(path: list[str]) -> str:
    return "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and (at := _index(part, len(document), path)) < len(document):
            document = document[at]
        else:
            raise PatchError(f'there is nothing at "{_text(path)}"')
    return document


def _set(document: Any, path: list[str], value: Any) -> Any:
    """Replace what is at `path`, which exists."""
    if not path:
        return value
    holder = _get(document, path[:-1])
    if isinstance(holder, list):
        holder[_index(path[-1], len(holder), path)] = value
    else:
        holder[path[-1]] = value
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder = _get(document, path[:-1])
    if isinstance(holder, dict):
        holder[path[-1]] = value
        return document
    if not isinstance(holder, list):
        raise PatchError(f'"{_text(path[:-1])}" is neither an object nor a list')
    at = _index(path[-1], len(holder), path)
    if at > len(holder):
        raise PatchError(f'"{_text(path)}" is past the end of a list of {len(holder)}')
    holder.insert(at, value)
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    removed = _get(document, path)
    if not path:
        return None, removed
    holder = _get(document, path[:-1])
    if isinstance(holder, list):
        del holder[_index(path[-1], len(holder), path)]
    else:
        del holder[path[-1]]
    return document, removed
