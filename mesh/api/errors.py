"""What can be wrong with an API object or a text that describes one."""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field, as Kubernetes reports it in `status.details.causes`."""

    path: str
    """Like `spec.template.spec.containers[0].image`; "" is the whole object."""
    reason: str
    """FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueDuplicate, FieldValueForbidden,
    FieldValueTypeInvalid or FieldValueUnknown (an unknown field: an error only under fieldValidation=Strict)."""
    message: str
    """What is wrong and what would be right, without the path."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
NOT_SUPPORTED = "FieldValueNotSupported"
DUPLICATE = "FieldValueDuplicate"
FORBIDDEN = "FieldValueForbidden"
TYPE_INVALID = "FieldValueTypeInvalid"
UNKNOWN = "FieldValueUnknown"
