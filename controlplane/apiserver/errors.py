"""Refusals as the Kubernetes API words them: every one becomes a Status object with reason, code and causes."""

from collections.abc import Sequence
from typing import Any

from mesh.api.resources import Json, Resource
from mesh.errors import MeshError

_GROUP_OF_STATUS = "v1"


class ApiStatusError(MeshError):
    """A request is refused. `code` is the HTTP status, `reason` the machine-readable word of the API conventions."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def to_status(self) -> Json:
        """The Status object of the answer."""
        status: Json = {
            "kind": "Status",
            "apiVersion": _GROUP_OF_STATUS,
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        details = dict(self.details or {})
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if details:
            status["details"] = details
        return status


def _about(resource: Resource, name: str, **more: Any) -> Json:
    details: Json = {"kind": resource.plural, **more}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    return details


def qualified(resource: Resource) -> str:
    """`pods` or `deployments.apps`."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def not_found(resource: Resource, name: str) -> ApiStatusError:
    """There is no such object."""
    return ApiStatusError(404, "NotFound", f'{qualified(resource)} "{name}" not found', details=_about(resource, name))


def no_such_path(path: str) -> ApiStatusError:
    """The server serves nothing there."""
    return ApiStatusError(404, "NotFound", f"the server could not find the requested resource: {path}")


def already_exists(resource: Resource, name: str) -> ApiStatusError:
    """Create of a name that is taken."""
    return ApiStatusError(
        409, "AlreadyExists", f'{qualified(resource)} "{name}" already exists', details=_about(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> ApiStatusError:
    """The object is not in the state the request assumed."""
    return ApiStatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}',
        details=_about(resource, name),
    )


def modified(resource: Resource, name: str) -> ApiStatusError:
    """The resourceVersion sent is not the newest."""
    return conflict(
        resource, name, "the object has been modified; please apply your changes to the latest version and try again"
    )


def cause(field: str, message: str, reason: str = "FieldValueInvalid") -> Json:
    """One entry of details.causes."""
    return {"reason": reason, "message": message, "field": field}


def invalid(resource: Resource, name: str, causes: Sequence[Json]) -> ApiStatusError:
    """The object breaks rules; `causes` (at least one) say where. Source: API conventions, StatusReasonInvalid."""
    texts = [f"{one['field']}: {one['message']}" for one in causes]
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    about: Json = {"kind": resource.kind, "name": name, "causes": list(causes)}
    if resource.group:
        about["group"] = resource.group
    shown = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiStatusError(422, "Invalid", f'{shown} "{name}" is invalid: {listed}', details=about)


def bad_request(message: str) -> ApiStatusError:
    """The request makes no sense as it is."""
    return ApiStatusError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiStatusError:
    """Nobody we know."""
    return ApiStatusError(401, "Unauthorized", message)


def forbidden(user: str, verb: str, what: str, where: str, why: str) -> ApiStatusError:
    """Somebody we know may not do that. `what` is a qualified resource with subresource, or a path."""
    because = f": {why}" if why else ""
    return ApiStatusError(403, "Forbidden", f'{what} is forbidden: User "{user}" cannot {verb} {what}{where}{because}')


def refused(resource: Resource, name: str, why: str, causes: Sequence[Json] = ()) -> ApiStatusError:
    """Admission says no."""
    about = _about(resource, name)
    if causes:
        about["causes"] = list(causes)
    return ApiStatusError(403, "Forbidden", f'{qualified(resource)} "{name}" is forbidden: {why}', details=about)


def expired(message: str) -> ApiStatusError:
    """A revision or continue token is too old: start again with a fresh list."""
    return ApiStatusError(410, "Expired", message)


def method_not_allowed(method: str, path: str) -> ApiStatusError:
    """The resource is there, the verb isn't."""
    return ApiStatusError(405, "MethodNotAllowed", f"{method} is not supported on {path}")


def unsupported_media_type(got: str, want: Sequence[str]) -> ApiStatusError:
    """The body's type can't be read here."""
    return ApiStatusError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format ({got}); accepted media types: {', '.join(want)}",
    )


def too_large(limit_bytes: int) -> ApiStatusError:
    """The body exceeds the limit."""
    return ApiStatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit_bytes} bytes")


def unavailable(message: str, *, retry_after_s: int = 1) -> ApiStatusError:
    """Try again later."""
    return ApiStatusError(503, "ServiceUnavailable", message, retry_after_s=retry_after_s)


def too_many_requests(message: str, *, retry_after_s: int = 1) -> ApiStatusError:
    """The server protects itself; try again later."""
    return ApiStatusError(429, "TooManyRequests", message, retry_after_s=retry_after_s)


def internal(message: str) -> ApiStatusError:
    """Our fault."""
    return ApiStatusError(500, "InternalError", f"Internal error occurred: {message}")
