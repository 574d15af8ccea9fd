"""Reading request bodies: bounded, strict, and with the place of an error."""

from typing import Any

import orjson
from aiohttp import web

from controlplane.apiserver import errors
from mesh.api.codec import decode_manifest
from mesh.api.errors import ManifestError
from mesh.api.resources import Json
from mesh.api.tree import is_deeper
from mesh.api.yaml_reader import MAX_DEPTH

JSON = "application/json"
YAML = "application/yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


def media_type(request: web.BaseRequest) -> str:
    """The body's type without parameters; JSON when the header is missing. Source: facts/kubectl.md."""
    return request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower() or JSON


async def read_bytes(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body. Raises ApiStatusError (413) as soon as it is longer than `limit` bytes."""
    if (request.content_length or 0) > limit:
        raise errors.too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > limit:
            raise errors.too_large(limit)
        parts.append(part)
    return b"".join(parts)


def parse_json(data: bytes) -> Any:
    """The value of a JSON text, at most MAX_DEPTH levels deep. Raises ApiStatusError (400) with line and column."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise errors.bad_request(
            f"the request body is not valid JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})"
        ) from exc
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise errors.bad_request(f"the request body is nested deeper than {MAX_DEPTH} levels")
    return value


def parse_object(data: bytes, type_: str) -> Json:
    """One object from a JSON or YAML body. Raises ApiStatusError (400, 415)."""
    if type_ == YAML:
        return _parse_yaml(data)
    if type_ != JSON:
        raise errors.unsupported_media_type(type_, (JSON, YAML))
    if not data.strip():
        raise errors.bad_request("the request has no body; send the object as JSON")
    value = parse_json(data)
    if not isinstance(value, dict):
        raise errors.bad_request(f"the request body is a JSON {type(value).__name__}, not an object")
    return value


def _parse_yaml(data: bytes) -> Json:
    try:
        documents = decode_manifest(data, "request body")
    except ManifestError as exc:
        raise errors.bad_request(str(exc)) from exc
    if len(documents) != 1:
        raise errors.bad_request(f"the request body has {len(documents)} YAML documents, not one")
    return documents[0].obj
