"""Strategic merge patch: lists merge by key, as the kind's schema says. Source: Kubernetes, "Strategic Merge Patch" design notes.

Entry point: `strategic_patch(obj, patch, node)`, with `node` from `SchemaRegistry.node(resource)`.
"""

from collections.abc import Mapping
from typing import Any

from mesh.api.errors import PatchError
from mesh.api.patch import same_json
from mesh.api.resources import Json
from mesh.api.schema_node import SchemaField, SchemaNode
from mesh.api.tree import child_path, copy_json

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ANY = SchemaNode()
_ANY_FIELD = SchemaField(_ANY)


def strategic_patch(obj: Json, patch: Any, node: SchemaNode) -> Json:
    """`obj` with `patch` merged into it; neither is changed.

    Understands $patch (replace, delete, merge), $retainKeys, $setElementOrder/FIELD and $deleteFromPrimitiveList/FIELD. Raises
    PatchError, with the field path, for a directive that makes no sense.
    """
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object")
    return _merge_object(obj, patch, node, "")


def _merge_object(old: Mapping[str, Any], patch: Mapping[str, Any], node: SchemaNode, path: str) -> Json:
    match patch.get(_PATCH, "merge"):
        case "merge":
            pass
        case "replace":
            return _new_object({k: v for k, v in patch.items() if k != _PATCH})
        case "delete":
            return {}
        case other:
            raise PatchError(f"{path or 'patch'}: unknown $patch {other!r}: use replace, delete or merge")
    result = _retained(old, patch, path)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            _delete_from(result, key.removeprefix(_DELETE_FROM), value, path)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(result, key, value, patch, _field(node, key), child_path(path, key))
    for key in patch:
        if key.startswith(_ORDER) and key.removeprefix(_ORDER) not in patch:
            _reorder_field(result, key.removeprefix(_ORDER), patch, node, path)
    return result


def _field(node: SchemaNode, key: str) -> SchemaField:
    entry = node.properties.get(key)
    if entry is not None:
        return entry
    return SchemaField(node.additional) if node.additional is not None else _ANY_FIELD


def _retained(old: Mapping[str, Any], patch: Mapping[str, Any], path: str) -> Json:
    if _RETAIN not in patch:
        return dict(old)
    keys = patch[_RETAIN]
    if not isinstance(keys, list):
        raise PatchError(f"{child_path(path, _RETAIN)}: must be a list of field names")
    for key, value in patch.items():
        if value is not None and not key.startswith("$") and key not in keys:
            raise PatchError(f"{child_path(path, key)}: is set, but missing from $retainKeys")
    return {k: v for k, v in old.items() if k in keys}


def _merge_field(result: Json, key: str, value: Any, patch: Mapping[str, Any], entry: SchemaField, path: str) -> None:
    if value is None:
        result.pop(key, None)
        return
    old = result.get(key)
    if isinstance(value, dict):
        result[key] = _merge_object(old if isinstance(old, dict) else {}, value, entry.node, path)
    elif isinstance(value, list) and "merge" in entry.strategies:
        order = patch.get(_ORDER + key)
        result[key] = _merge_list(old if isinstance(old, list) else [], value, order, entry, path)
    else:
        result[key] = _new_value(value)


def _reorder_field(result: Json, key: str, patch: Mapping[str, Any], node: SchemaNode, path: str) -> None:
    old = result.get(key)
    entry = _field(node, key)
    if isinstance(old, list) and "merge" in entry.strategies:
        result[key] = _merge_list(old, [], patch[_ORDER + key], entry, child_path(path, key))


def _delete_from(result: Json, key: str, values: Any, path: str) -> None:
    if not isinstance(values, list):
        raise PatchError(f"{child_path(path, _DELETE_FROM + key)}: must be a list of values")
    if isinstance(result.get(key), list):
        result[key] = [v for v in result[key] if not any(same_json(v, gone) for gone in values)]


def _new_object(patch: Mapping[str, Any]) -> Json:
    """What a patch makes where there was nothing: without directives and nulls."""
    return {k: _new_value(v) for k, v in patch.items() if v is not None and not k.startswith("$")}


def _new_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _new_object(value)
    if isinstance(value, list):
        kept = (v for v in value if not (isinstance(v, dict) and v.get(_PATCH) == "delete"))
        return [_new_value(v) for v in kept if not (isinstance(v, dict) and v.keys() == {_PATCH})]
    return value


def _merge_list(old: list[Any], patch: list[Any], order: Any, entry: SchemaField, path: str) -> list[Any]:
    if order is not None and not isinstance(order, list):
        raise PatchError(f"{path}: $setElementOrder must be a list")
    if not entry.merge_key:
        return _merge_plain(old, patch, order)
    key = entry.merge_key
    for item in (*patch, *(order or ())):
        if not isinstance(item, dict) or (key not in item and item.keys() != {_PATCH}):
            raise PatchError(f'{path}: every element must be an object with the merge key "{key}"')
    if any(item.get(_PATCH) == "replace" for item in patch):
        return [_new_object(item) for item in patch if item.keys() != {_PATCH}]
    merged = _merge_keyed(old, patch, key, entry.node.items or _ANY, path)
    if order is None:
        return merged
    return _ordered(merged, [item[key] for item in order if key in item], [_key_of(v, key) for v in old], key)


def _merge_plain(old: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    merged = copy_json(old)
    for value in patch:
        if not any(same_json(value, v) for v in merged):
            merged.append(copy_json(value))
    return merged if order is None else _ordered(merged, order, old, "")


def _key_of(item: Any, key: str) -> Any:
    """What identifies a list element: itself for plain values (key ""), its merge key for objects."""
    if not key:
        return item
    return item.get(key) if isinstance(item, dict) else None


def _merge_keyed(old: list[Any], patch: list[Json], key: str, node: SchemaNode, path: str) -> list[Any]:
    gone = [item[key] for item in patch if item.get(_PATCH) == "delete" and key in item]
    merged = [copy_json(v) for v in old if not any(same_json(_key_of(v, key), g) for g in gone)]
    for item in patch:
        if item.get(_PATCH) == "delete":
            continue
        at = next((i for i, v in enumerate(merged) if same_json(_key_of(v, key), item[key])), None)
        place = f"{path}[{key}={item[key]}]"
        if at is None:
            merged.append(_merge_object({}, item, node, place))
        else:
            merged[at] = _merge_object(merged[at], item, node, place)
    return merged


def _ordered(merged: list[Any], order: list[Any], old_keys: list[Any], key: str) -> list[Any]:
    """The elements named in `order` in that order; the others keep their place relative to them, as they stood in the old list."""
    named = sorted(
        (v for v in merged if _position(order, _key_of(v, key)) >= 0), key=lambda v: _position(order, _key_of(v, key))
    )
    others = [v for v in merged if _position(order, _key_of(v, key)) < 0]
    result: list[Any] = []
    while named and others:
        left, right = (_position(old_keys, _key_of(v, key)) for v in (named[0], others[0]))
        result.append(named.pop(0) if 0 <= left < right else others.pop(0))
    return result + named + others


def _position(keys: list[Any], wanted: Any) -> int:
    return next((i for i, k in enumerate(keys) if same_json(k, wanted)), -1)
