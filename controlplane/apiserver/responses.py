"""Answers: JSON bytes with their headers."""

from collections.abc import Sequence

import orjson
from aiohttp import web

from controlplane.apiserver.errors import ApiStatusError
from mesh.api.resources import Json

JSON_TYPE = "application/json"
MAX_WARNING = 256
"""Characters of one warning. Source: kube-apiserver truncates at 256."""


def json_response(
    body: Json | bytes, *, status: int = 200, warnings: Sequence[str] = (), content_type: str = JSON_TYPE
) -> web.Response:
    """A JSON answer."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    response = web.Response(body=data, status=status, headers={"Content-Type": content_type})
    response.headers["Cache-Control"] = "no-cache, private"
    for text in dict.fromkeys(warnings):
        response.headers.add("Warning", f'299 - "{_quoted(text)}"')
    return response


def _quoted(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text[:MAX_WARNING])
    return plain.replace("\\", "\\\\").replace('"', '\\"')


def status_response(error: ApiStatusError) -> web.Response:
    """A refusal."""
    response = json_response(error.to_status(), status=error.code)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="meshwork"'
    return response


def success(details: Json | None = None) -> Json:
    """A Status that says it is done."""
    status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        status["details"] = details
    return status
