"""What can be wrong with an API object or a text that describes one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from mesh.errors import UserError


class ApiObjectError(UserError):
    """The root of this room's errors: the object or the text is at fault."""


class ViewError(ApiObjectError):
    """A JSON object does not have the shape its typed view needs. The message holds the field path."""


class ManifestError(ApiObjectError):
    """A manifest cannot be read. The message starts with `source:line:column`."""


class QuantityError(ApiObjectError):
    """A text is not a Kubernetes quantity."""


class SelectorError(ApiObjectError):
    """A label or field selector cannot be parsed."""


class PatchError(ApiObjectError):
    """A patch is malformed or cannot be applied to this object."""


class PatchTestFailedError(PatchError):
    """A JSON patch `test` operation did not hold."""


class SchemaError(ApiObjectError):
    """A schema (of a CustomResourceDefinition, say) cannot be used."""


REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
NOT_SUPPORTED = "FieldValueNotSupported"
DUPLICATE = "FieldValueDuplicate"
FORBIDDEN = "FieldValueForbidden"
NOT_FOUND = "FieldValueNotFound"
TYPE_INVALID = "FieldValueTypeInvalid"
UNKNOWN = "FieldValueUnknown"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field, as Kubernetes reports it in `status.details.causes`."""

    path: str
    """Like `spec.template.spec.containers[0].image`; "" is the whole object."""
    reason: str
    """FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueDuplicate, FieldValueForbidden, FieldValueNotFound,
    FieldValueTypeInvalid or FieldValueUnknown (an unknown field: an error only under fieldValidation=Strict)."""
    message: str
    """What is wrong and what would be right, without the path."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def required(path: str, detail: str = "") -> FieldError:
    """The field is missing or empty."""
    return FieldError(path, REQUIRED, f"Required value: {detail}" if detail else "Required value")


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The field has a value it cannot have; `detail` says what it must be."""
    return FieldError(path, INVALID, f"Invalid value: {_shown(value)}: {detail}")


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> FieldError:
    """The field has none of the values it may have."""
    choices = ", ".join(f'"{choice}"' for choice in allowed)
    return FieldError(path, NOT_SUPPORTED, f"Unsupported value: {_shown(value)}: supported values: {choices}")


def duplicate(path: str, value: Any) -> FieldError:
    """The value must be unique in its list."""
    return FieldError(path, DUPLICATE, f"Duplicate value: {_shown(value)}")


def forbidden(path: str, detail: str) -> FieldError:
    """The field may not be set, or not be changed, here."""
    return FieldError(path, FORBIDDEN, f"Forbidden: {detail}")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 120 else text[:117] + "..."
