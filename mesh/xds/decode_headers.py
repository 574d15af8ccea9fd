"""Header changes of routes: envoy.config.core.v3.HeaderValueOption. Pure."""

import re
from collections.abc import Iterable
from typing import Any, Final

from mesh.routing.headers import NO_MUTATION, HeaderMutation, HeaderValue, Presence
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, wrapped

HEADER_FIELDS: Final = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)
_FORMAT: Final = re.compile(r"%(?!%)[^%]*%|%%")
_APPEND_IF_EXISTS_OR_ADD: Final = 0
_ACTIONS: Final = {
    1: (True, Presence.ABSENT),  # ADD_IF_ABSENT
    2: (False, Presence.ANY),  # OVERWRITE_IF_EXISTS_OR_ADD
    3: (False, Presence.PRESENT),  # OVERWRITE_IF_EXISTS
}


def mutation(message: Any, path: str, which: str) -> HeaderMutation:
    """`request_headers_to_add` and `..._to_remove` (`which` "request"), or those of the response."""
    add, remove = f"{which}_headers_to_add", f"{which}_headers_to_remove"
    names = tuple(str(name).lower() for name in getattr(message, remove))
    for i, name in enumerate(names):
        if not name or name.startswith(":") or name == "host":
            raise DecodeError(f"{join(path, remove)}[{i}]", f'"{name}" can\'t be removed: the request needs it')
    added = added_headers(getattr(message, add), join(path, add))
    return HeaderMutation(add=added, remove=names) if added or names else NO_MUTATION


def added_headers(options: Iterable[Any], path: str) -> tuple[HeaderValue, ...]:
    """A list of HeaderValueOption."""
    found = (_header_value(option, f"{path}[{i}]") for i, option in enumerate(options))
    return tuple(value for value in found if value is not None)


def _header_value(option: Any, path: str) -> HeaderValue | None:
    """None for an empty value that is not to be kept."""
    only(option, path, "header", "append", "append_action", "keep_empty_value")
    header = option.header
    only(header, join(path, "header"), "key", "value", "raw_value")
    text = header.value or header.raw_value.decode("latin-1")
    name = str(header.key).lower()
    if not name or name.startswith(":") or name == "host":
        raise DecodeError(
            join(path, "header.key"), f'"{header.key}" can\'t be set; use host_rewrite_literal for the host'
        )
    if "\r" in text or "\n" in text or "\0" in text:
        raise DecodeError(join(path, "header.value"), "holds a line break or a NUL")
    if not text and not option.keep_empty_value:
        return None
    if option.append_action == _APPEND_IF_EXISTS_OR_ADD:
        append, when = bool(wrapped(option, "append", True)), Presence.ANY
    else:
        append, when = _ACTIONS[option.append_action]
    return HeaderValue(name=name, value=_literal(text, path), append=append, when=when)


def _literal(text: str, path: str) -> str:
    if any(found != "%%" for found in _FORMAT.findall(text)):
        raise DecodeError(
            join(path, "header.value"), f"{text!r}: %VARIABLES% are not supported; write %% for a percent sign"
        )
    return text.replace("%%", "%")
