"""YAML text to JSON values with the line of every field.

Built on libyaml's event stream, so depth, aliases and duplicate keys are checked while reading: a hostile text cannot exhaust the
stack or the memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from mesh.api.errors import ManifestError
from mesh.api.tree import child_path, copy_json, is_deeper, item_path, node_count

MAX_DEPTH = 100
"""Levels of nesting."""
MAX_VALUES = 1_000_000
"""Values in one text, aliases expanded."""

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"))
_FALSE = frozenset(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MERGE_KEY = "<<"
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class YamlValue:
    """One document."""

    value: Any
    line: int
    column: int
    lines: dict[str, int] = field(default_factory=dict)
    """Field path -> line, 1-based."""


class YamlReader:
    """Reads one text. Raises ManifestError."""

    def __init__(self, data: bytes, source: str) -> None:
        self._source = source
        self._events: Iterator[yaml.Event] = self._parse(data)
        self._anchors: dict[str, Any] = {}
        self._budget = MAX_VALUES
        self._lines: dict[str, int] = {}

    def documents(self) -> list[YamlValue]:
        """Every document of the text, empty ones with value None."""
        found: list[YamlValue] = []
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors, self._lines = {}, {}
            first = next(self._events)
            value = self._value(first, "", 1)
            line, column = _place(first)
            found.append(YamlValue(value=value, line=line, column=column, lines=self._lines))
        return found

    def _parse(self, data: bytes) -> Iterator[yaml.Event]:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = data.count(b"\n", 0, exc.start) + 1
            raise ManifestError(
                f"{self._source}:{line}:1: not UTF-8 at byte {exc.start}: save the file as UTF-8"
            ) from exc
        try:
            yield from yaml.parse(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            place = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else "1:1"
            context = f" ({exc.context})" if exc.context else ""
            raise ManifestError(f"{self._source}:{place}: not YAML: {exc.problem}{context}{_hint(exc)}") from exc
        except yaml.YAMLError as exc:
            reason = getattr(exc, "reason", str(exc))
            line = text.count("\n", 0, getattr(exc, "position", 0)) + 1
            raise ManifestError(f"{self._source}:{line}:1: not YAML: {reason}") from exc

    def _error(self, event: yaml.Event, message: str) -> ManifestError:
        line, column = _place(event)
        return ManifestError(f"{self._source}:{line}:{column}: {message}")

    def _spend(self, event: yaml.Event, values: int) -> None:
        self._budget -= values
        if self._budget < 0:
            raise self._error(event, f"more than {MAX_VALUES} values after expanding aliases")

    def _value(self, event: yaml.Event, path: str, depth: int) -> Any:
        self._spend(event, 1)
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        if path and path not in self._lines:
            self._lines[path] = _place(event)[0]
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(path, depth)
        else:
            raise self._error(event, "unexpected end of the document")
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _alias(self, event: yaml.AliasEvent, depth: int) -> Any:
        if event.anchor not in self._anchors:
            raise self._error(event, f"alias *{event.anchor} has no anchor &{event.anchor} before it")
        target = self._anchors[event.anchor]
        self._spend(event, node_count(target, self._budget + 1))
        if is_deeper(target, MAX_DEPTH - depth + 1):
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels after expanding aliases")
        return copy_json(target)

    def _sequence(self, path: str, depth: int) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, item_path(path, len(result)), depth + 1))
        return result

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            if key == _MERGE_KEY and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged.extend(self._merge_sources(next(self._events), path, depth))
                continue
            if key in result:
                raise self._error(event, f'duplicate key "{key}"{_in(path)}: remove one of the two')
            field_path = child_path(path, key)
            self._lines[field_path] = _place(event)[0]
            result[key] = self._value(next(self._events), field_path, depth + 1)
        for source in merged:  # Keys written here win over merged ones, earlier merges over later ones.
            for key, value in source.items():
                result.setdefault(key, value)
        return result

    def _merge_sources(self, event: yaml.Event, path: str, depth: int) -> list[dict[str, Any]]:
        value = self._value(event, path, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise self._error(event, "<< merges mappings only")
        return sources

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.AliasEvent):
            value = self._alias(event, 1)
        elif isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = value
        else:
            raise self._error(event, "a key must be a plain text, not a list or an object")
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None or isinstance(value, (list, dict)):
            raise self._error(event, "a key must be a text; put quotes around it")
        return str(value)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        if event.tag is None:
            return self._plain(event, text) if event.implicit[0] else text
        match event.tag.removeprefix(_TAG):
            case "str" | "!":
                return text
            case "int" | "float" | "bool" | "null":
                return self._plain(event, text)
        raise self._error(event, f"tag {event.tag} is not allowed: manifests hold plain JSON values")

    def _plain(self, event: yaml.ScalarEvent, text: str) -> Any:
        """Source: YAML 1.1 types; like Go's reader, `1e3` is a number; unlike YAML 1.1, `22:22` and dates are texts."""
        if text in _NULL:
            return None
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        if _INT.fullmatch(text):
            return self._integer(event, text.replace("_", ""))
        if _FLOAT.fullmatch(text):
            return self._float(event, text)
        if _NOT_FINITE.fullmatch(text):
            raise self._error(event, f"{text} has no JSON form; put quotes around it if it is a text")
        return text

    def _float(self, event: yaml.ScalarEvent, text: str) -> float:
        number = float(text.replace("_", ""))
        if number in (float("inf"), float("-inf")):
            raise self._error(event, f"the number {text[:40]} is too large")
        return number

    def _integer(self, event: yaml.ScalarEvent, text: str) -> int:
        if len(text) > 70:
            raise self._error(event, f"a number of {len(text)} digits is too long")
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            base = {"b": 2, "x": 16}.get(digits[1], 8)
            number = int(digits.lower().removeprefix("0b" if base == 2 else "0x" if base == 16 else "0o") or "0", base)
        else:
            number = int(digits)
        return -number if text.startswith("-") else number


def looks_like_number(text: str) -> bool:
    """A plain scalar that this reader takes for a number."""
    return bool(_INT.fullmatch(text) or _FLOAT.fullmatch(text))


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _in(path: str) -> str:
    return f" in {path}" if path else ""


def _hint(exc: yaml.MarkedYAMLError) -> str:
    problem = str(exc.problem or "")
    if "cannot start any token" in problem:
        return "; indent with spaces, not tabs, and put quotes around a text that starts with @ or `"
    if "mapping values are not allowed" in problem:
        return "; check the indentation, or put quotes around a text that holds ': '"
    if "did not find expected" in problem:
        return "; check the indentation and closing brackets or quotes above this line"
    return ""
