"""Watch streams: newline-delimited JSON events, with a bound on the length of a line.

Source: Kubernetes API concepts, "Efficient detection of changes".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from mesh.api.resources import Json
from mesh.client.errors import ApiError, UnavailableError, error_from_status

MAX_LINE_BYTES = 8 << 20
"""A longer event ends the watch with an error. The API server takes objects of at most 3 MB."""


class EventType(Enum):
    """What happened to the object. BOOKMARK: nothing; its object carries only a newer resourceVersion."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch. For DELETED, `object` is the last state."""

    type: EventType
    object: Json

    @property
    def resource_version(self) -> str:
        """Watch from here to see what comes next."""
        return str(self.object.get("metadata", {}).get("resourceVersion", ""))


class LineSplitter:
    """Cuts a byte stream into lines. Pure; holds at most `limit` bytes of an unfinished line."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes, without their newline. Raises UnavailableError when one is too long."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._parts.append(line)
            whole = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._check(len(whole))
            if whole.strip():
                yield whole
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            self._check(self._size)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise UnavailableError(
                f"a watch event is longer than {self._limit} bytes: list again", reason="OversizedEvent"
            )


def parse_event(line: bytes, *, request: str) -> WatchEvent:
    """Read one line. Raises the typed ApiError of an ERROR event (410 is GoneError), UnavailableError for garbage."""
    try:
        message: Any = orjson.loads(line)
        name, obj = message["type"], message["object"]
        if name == "ERROR":
            raise _error_of(obj, request)
        return WatchEvent(EventType(name), obj)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise UnavailableError(
            f"{request}: the server sent something that is not a watch event: {line[:80]!r}", reason="BadEvent"
        ) from exc


def _error_of(obj: Any, request: str) -> ApiError:
    body = obj if isinstance(obj, dict) else {}
    code = body.get("code", 500)
    return error_from_status(code if isinstance(code, int) else 500, body, request=request)
