"""Walks a value along its compiled schema and names everything that does not fit."""

import base64
import binascii
import difflib
import re
from typing import Any

from mesh.api.errors import (
    INVALID,
    TYPE_INVALID,
    UNKNOWN,
    FieldError,
    duplicate,
    invalid,
    not_supported,
    required,
)
from mesh.api.patch import same_json
from mesh.api.schema_node import SchemaNode
from mesh.api.tree import child_path, item_path

MAX_ERRORS = 100
"""The walk stops there: a hostile object must not make an endless answer."""
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


class SchemaWalk:
    """One validation. `errors` is the result, in the order of the object."""

    def __init__(self, *, lenient: frozenset[str] = frozenset()) -> None:
        self.errors: list[FieldError] = []
        self._lenient = lenient
        """Paths under which missing fields are no error (status)."""

    def check(self, node: SchemaNode, value: Any, path: str, *, requires: bool = True) -> None:
        """Compare `value` with `node`; `requires` = False lets required fields be missing."""
        if len(self.errors) >= MAX_ERRORS:
            return
        if value is None:
            if not node.is_nullable:
                self.errors.append(FieldError(path, TYPE_INVALID, f"expected {_names(node)}, got null"))
            return
        if node.types and not _is_of(value, node.types):
            self.errors.append(FieldError(path, TYPE_INVALID, f"expected {_names(node)}, got {_described(value)}"))
            return
        if node.enum and not any(same_json(value, choice) for choice in node.enum):
            self.errors.append(not_supported(path, value, (str(choice) for choice in node.enum)))
        self._check_plain(node, value, path)
        if isinstance(value, dict):
            self._check_object(node, value, path, requires=requires and path not in self._lenient)
        elif isinstance(value, list):
            self._check_list(node, value, path, requires=requires)
        for word, options in node.choices:
            self._check_choice(word, options, value, path)

    def _check_object(self, node: SchemaNode, value: dict[str, Any], path: str, *, requires: bool) -> None:
        if requires:
            for name in node.required:
                if value.get(name) is None:
                    self.errors.append(required(child_path(path, name)))
        for name, child in value.items():
            entry = node.properties.get(name)
            if entry is not None:
                self.check(entry.node, child, child_path(path, name), requires=requires)
            elif node.additional is not None:
                self.check(node.additional, child, child_path(path, name), requires=requires)
            elif not node.is_open:
                self.errors.append(_unknown(node, name, path))

    def _check_list(self, node: SchemaNode, value: list[Any], path: str, *, requires: bool) -> None:
        if node.items is not None:
            for index, child in enumerate(value):
                self.check(node.items, child, item_path(path, index), requires=requires)
        if node.list_map_keys and not node.is_nullable:  # Kubernetes' own types are checked in validation*.py.
            keys = [tuple(c.get(k) for k in node.list_map_keys) if isinstance(c, dict) else None for c in value]
            self._check_unique(keys, path)
        elif node.is_set and not node.is_nullable:
            self._check_unique(value, path)

    def _check_unique(self, values: list[Any], path: str) -> None:
        seen: set[str] = set()
        for index, value in enumerate(values):
            text = repr(value)
            if text in seen:
                self.errors.append(duplicate(item_path(path, index), value))
            seen.add(text)

    def _check_plain(self, node: SchemaNode, value: Any, path: str) -> None:
        if node.format:
            self._check_format(node.format, value, path)
        if node.pattern is not None and isinstance(value, str) and not node.pattern.search(value):
            self.errors.append(invalid(path, value, f"must match '{node.pattern.pattern}'"))
        if node.limits:
            self._check_limits(node.limits, value, path)

    def _check_format(self, name: str, value: Any, path: str) -> None:
        if name in _RANGES and isinstance(value, (int, float)):
            low, high = _RANGES[name]
            if not low <= value <= high:
                self.errors.append(invalid(path, value, f"must be an {name} number"))
        elif name == "date-time" and isinstance(value, str) and not _DATE_TIME.fullmatch(value):
            self.errors.append(invalid(path, value, "must be an RFC 3339 time such as 2025-01-31T12:00:00Z"))
        elif name == "byte" and isinstance(value, str) and not _is_base64(value):
            self.errors.append(
                FieldError(path, INVALID, "Invalid value: must be base64 (use stringData for plain texts)")
            )

    def _check_limits(self, limits: Any, value: Any, path: str) -> None:
        if isinstance(value, bool):
            return
        if isinstance(value, (int, float)):
            self._check_number(limits, value, path)
            return
        suffix = _SIZES.get(type(value))
        if suffix is None:
            return
        if len(value) < limits.get(f"min{suffix}", 0):
            self.errors.append(invalid(path, value, f"must have at least {limits[f'min{suffix}']} {_UNIT[suffix]}"))
        if len(value) > limits.get(f"max{suffix}", len(value)):
            self.errors.append(invalid(path, value, f"must have at most {limits[f'max{suffix}']} {_UNIT[suffix]}"))
        if limits.get("uniqueItems") and isinstance(value, list):
            self._check_unique(value, path)

    def _check_number(self, limits: Any, value: float, path: str) -> None:
        low, high, step = limits.get("minimum"), limits.get("maximum"), limits.get("multipleOf")
        if low is not None and (value < low or (value == low and limits.get("exclusiveMinimum"))):
            word = "greater than" if limits.get("exclusiveMinimum") else "greater than or equal to"
            self.errors.append(invalid(path, value, f"must be {word} {low}"))
        if high is not None and (value > high or (value == high and limits.get("exclusiveMaximum"))):
            word = "less than" if limits.get("exclusiveMaximum") else "less than or equal to"
            self.errors.append(invalid(path, value, f"must be {word} {high}"))
        if step and value % step:
            self.errors.append(invalid(path, value, f"must be a multiple of {step}"))

    def _check_choice(self, word: str, options: tuple[SchemaNode, ...], value: Any, path: str) -> None:
        results = [_errors_of(option, value, path) for option in options]
        fitting = sum(1 for errors in results if not errors)
        if word == "allOf":
            self.errors.extend(error for errors in results for error in errors)
        elif word == "anyOf" and not fitting:
            self.errors.append(invalid(path, value, "must fit at least one of the schemas (anyOf)"))
        elif word == "oneOf" and fitting != 1:
            self.errors.append(invalid(path, value, f"must fit exactly one of the schemas (oneOf), fits {fitting}"))
        elif word == "not" and fitting:
            self.errors.append(invalid(path, value, "must not fit the schema (not)"))


_UNIT = {"Length": "characters", "Items": "items", "Properties": "fields"}
_SIZES: dict[type[Any], str] = {str: "Length", list: "Items", dict: "Properties"}
_PYTHON_TYPES: dict[type[Any], str] = {dict: "object", list: "array", str: "string", bool: "boolean"}


def _errors_of(node: SchemaNode, value: Any, path: str) -> list[FieldError]:
    walk = SchemaWalk()
    walk.check(node, value, path)
    return walk.errors


def _is_of(value: Any, types: frozenset[str]) -> bool:
    name = _PYTHON_TYPES.get(type(value))
    if name is not None:
        return name in types
    if "number" in types:
        return isinstance(value, (int, float))
    return "integer" in types and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _names(node: SchemaNode) -> str:
    return " or ".join(sorted(node.types)) or "a value"


def _described(value: Any) -> str:
    name = _PYTHON_TYPES.get(type(value), "number")
    if isinstance(value, (dict, list)):
        return name
    text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    return f"{name} {text if len(text) <= 80 else text[:77] + '...'}"


def _unknown(node: SchemaNode, name: str, path: str) -> FieldError:
    full = child_path(path, name)
    close = difflib.get_close_matches(name, node.properties, n=1)
    hint = f' (did you mean "{close[0]}"?)' if close else ""
    return FieldError(full, UNKNOWN, f'unknown field "{full}"{hint}')


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
