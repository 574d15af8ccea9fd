"""What a request asks for, read from its method, path and query: strict, and without touching anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from controlplane.apiserver import errors

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False", ""})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


class FieldValidation(Enum):
    """What unknown or duplicate fields do. Source: Kubernetes API concepts, "Field validation"."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The place in the URL space: /api/v1/namespaces/NS/pods/NAME/log and the like."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """Path below the subresource (proxy), without its first slash."""


def parse_target(raw_path: str) -> Target | None:
    """The object or collection a raw URL path names; None if it is no resource path. Raises ApiStatusError (400)."""
    segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
    if segments[0] == "api" and len(segments) >= 3:
        group, version, rest = "", segments[1], segments[2:]
    elif segments[0] == "apis" and len(segments) >= 4:
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        return None
    _check_segments(rest[:4])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and not (len(rest) == 3 and rest[2] in _NAMESPACE_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest[:3], "", "")[:3] if len(rest) < 3 else rest[:3]
    return Target(
        group=group,
        version=version,
        plural=plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
        rest="/".join(rest[3:]),
    )


def _check_segments(segments: list[str]) -> None:
    """Names go into keys of the store: no empty ones, none that could name another key."""
    for segment in segments:
        if not segment or segment in (".", "..") or "/" in segment or "%" in segment or "\x00" in segment:
            raise errors.bad_request(f"invalid path segment {segment!r}")
        if len(segment) > 512:
            raise errors.bad_request("a path segment is longer than 512 characters")


def parse_bool(name: str, text: str) -> bool:
    """A boolean as Go writes it. Raises ApiStatusError (400)."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise errors.bad_request(f"query parameter {name}: {text!r} is not a boolean; use true or false")


def parse_count(name: str, text: str, *, maximum: int = 2**53) -> int:
    """A number >= 0. Raises ApiStatusError (400)."""
    if not (text.isascii() and text.isdigit()) or int(text) > maximum:
        raise errors.bad_request(f"query parameter {name}: {text!r} is not a number from 0 to {maximum}")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """Query parameters of create, update and patch."""

    dry_run: bool = False
    field_validation: FieldValidation = FieldValidation.WARN
    field_manager: str = ""
    force: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "WriteOptions":
        """Raises ApiStatusError (400)."""
        return cls(
            dry_run=parse_dry_run(query.get("dryRun", "")),
            field_validation=_field_validation(query.get("fieldValidation", "")),
            field_manager=query.get("fieldManager", "")[:128],
            force=parse_bool("force", query.get("force", "")),
        )


def parse_dry_run(text: str) -> bool:
    """`All` is the only dry run there is. Raises ApiStatusError (400)."""
    if text not in ("", "All"):
        raise errors.bad_request(f"query parameter dryRun: {text!r} is not supported; use All")
    return text == "All"


def _field_validation(text: str) -> FieldValidation:
    try:
        return FieldValidation(text or "Warn")
    except ValueError as exc:
        raise errors.bad_request(f"query parameter fieldValidation: {text!r}; use Strict, Warn or Ignore") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """Query parameters of list and watch."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    is_watch: bool = False
    timeout_s: int = 0
    allow_bookmarks: bool = False
    send_initial_events: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "ListOptions":
        """Raises ApiStatusError (400)."""
        return cls(
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            limit=parse_count("limit", query.get("limit") or "0"),
            continue_token=query.get("continue", ""),
            resource_version=query.get("resourceVersion", ""),
            resource_version_match=query.get("resourceVersionMatch", ""),
            is_watch=parse_bool("watch", query.get("watch", "")),
            timeout_s=parse_count("timeoutSeconds", query.get("timeoutSeconds") or "0"),
            allow_bookmarks=parse_bool("allowWatchBookmarks", query.get("allowWatchBookmarks", "")),
            send_initial_events=parse_bool("sendInitialEvents", query.get("sendInitialEvents", "")),
        )


_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}


def verb_of(method: str, target: Target, *, is_watch: bool) -> str:
    """The verb that authorization decides on; "" when the method has none there."""
    if target.name:
        return _OBJECT_VERBS.get(method, "")
    if method in ("GET", "HEAD") and is_watch:
        return "watch"
    return _COLLECTION_VERBS.get(method, "")
