"""The one place where the API's rules about objects are applied: schema, defaults, validation. They live in mesh.api."""

from collections.abc import Iterable, Sequence

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.request import FieldValidation
from mesh.api.defaults import apply_defaults
from mesh.api.errors import UNKNOWN, FieldError, SchemaError
from mesh.api.resources import Json
from mesh.api.schema import SchemaRegistry
from mesh.api.strategic import strategic_patch
from mesh.api.validation import validate_object

MAX_WARNINGS = 20


class Rules:
    """Applies them, as refusals of the API."""

    def __init__(self) -> None:
        self.schemas = SchemaRegistry()
        self._trial = SchemaRegistry()
        """Where schemas are compiled to see whether they can be used."""

    def check_schema(
        self, kind: Kind, obj: Json, validation: FieldValidation, warnings: list[str], *, is_whole: bool = True
    ) -> None:
        """Wrong types are refused; unknown fields as `validation` says. Raises ApiStatusError (400, 422).

        Of an object that is not whole, only what is there counts, not what is missing.
        """
        found = self.schemas.validate(kind.resource, obj)
        if not is_whole:
            found = tuple(one for one in found if one.path.startswith("metadata"))
        if not found:
            return
        unknown = [one.message for one in found if one.reason == UNKNOWN]
        is_strict = validation is FieldValidation.STRICT
        if causes := causes_of(found):
            if is_strict:
                causes += [errors.cause(one.path, one.message, UNKNOWN) for one in found if one.reason == UNKNOWN]
            raise errors.invalid(kind.resource, str(obj["metadata"].get("name", "")), causes)
        if is_strict:
            resource = kind.resource
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(unknown)}"
            )
        if validation is FieldValidation.WARN:
            warnings += unknown[:MAX_WARNINGS]

    def defaulted(self, kind: Kind, obj: Json) -> Json:
        """A copy of the object with its defaults filled in."""
        if self.schemas.supports_strategic_patch(kind.resource):
            return apply_defaults(kind.resource, obj)
        return self.schemas.apply_schema_defaults(kind.resource, apply_defaults(kind.resource, obj))

    def validate(self, kind: Kind, obj: Json, old: Json | None) -> None:
        """Refuse what means nothing, or may not change from `old`. Raises ApiStatusError (422)."""
        if causes := causes_of(validate_object(kind.resource, obj, old)):
            raise errors.invalid(kind.resource, str(obj["metadata"].get("name", "")), causes)

    def has_strategic_patch(self, kind: Kind) -> bool:
        """Whether strategic merge patches are understood: for Kubernetes' own kinds only."""
        return self.schemas.supports_strategic_patch(kind.resource)

    def strategic_patch(self, kind: Kind, obj: Json, patch: Json) -> Json:
        """`obj` with a strategic merge patch applied. Raises PatchError."""
        return strategic_patch(obj, patch, self.schemas.node(kind.resource))

    def set_custom(self, old: Sequence[Kind], new: Sequence[Kind]) -> None:
        """Know the schemas of `new` instead of those of `old`. Raises SchemaError."""
        for kind in old:
            self.schemas.remove_custom(kind.resource)
        for kind in new:
            self.schemas.set_custom(kind.resource, None if kind.schema is None else dict(kind.schema))

    def schema_problem(self, kind: Kind) -> str:
        """Why a custom kind's schema can't be used; "" if it can."""
        try:
            self._trial.set_custom(kind.resource, None if kind.schema is None else dict(kind.schema))
        except SchemaError as exc:
            return str(exc)
        finally:
            self._trial.remove_custom(kind.resource)
        return ""


def causes_of(found: Iterable[FieldError]) -> list[Json]:
    """FieldErrors as details.causes."""
    return [errors.cause(one.path, one.message, one.reason) for one in found if one.reason != UNKNOWN]
