"""What an API server can answer instead of the object asked for. Nothing of aiohttp, ssl or OSError leaves this room.

Source: Kubernetes API conventions, "Response Status Kind".
"""

from collections.abc import Mapping
from typing import Any

from mesh.errors import MeshError, RemoteError, UserError


class ClientConfigError(UserError):
    """A kubeconfig or client setting is unusable."""


class ApiError(MeshError):
    """The API server refused or could not be reached.

    `status` is the HTTP status (0 when no answer came), `reason` the CamelCase word of the Status body, `details` its details.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.details: Mapping[str, Any] = details or {}

    @property
    def retry_after_s(self) -> float:
        """Seconds the server asked to wait before trying again; 0 when it did not say."""
        value = self.details.get("retryAfterSeconds", 0)
        return float(value) if isinstance(value, int | float) else 0.0


class BadRequestError(ApiError):
    """400: the request itself is malformed."""


class UnauthorizedError(ApiError):
    """401: the credentials are missing, wrong or expired."""


class ForbiddenError(ApiError):
    """403: known, but not allowed."""


class NotFoundError(ApiError):
    """404: there is no such object, or no such kind."""


class ConflictError(ApiError):
    """409: somebody else changed the object first, or a precondition failed. Read again and decide again."""


class AlreadyExistsError(ConflictError):
    """409 AlreadyExists: an object of that name is there."""


class GoneError(ApiError):
    """410: the resourceVersion or continue token has expired. List again."""


class InvalidError(ApiError):
    """422: the object does not pass validation; `details["causes"]` names the fields."""


class TooManyRequestsError(ApiError):
    """429: not now; see `retry_after_s`."""


class UnavailableError(ApiError, RemoteError):
    """5xx, or no answer at all. For a write that is not idempotent it is unknown whether it happened."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def error_from_status(code: int, body: Mapping[str, Any], *, request: str) -> ApiError:
    """The typed error for an HTTP answer. `body` is the Status object, or {} when the answer was something else."""
    reason = str(body.get("reason", ""))
    details = body.get("details")
    message = str(body.get("message") or f"HTTP {code}")
    if reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExistsError
    elif reason in ("Gone", "Expired"):
        kind = GoneError
    elif code >= 500:
        kind = UnavailableError
    else:
        kind = _BY_STATUS.get(code, ApiError)
    return kind(
        f"{request}: {message}",
        status=code,
        reason=reason,
        details=details if isinstance(details, Mapping) else None,
    )
