"""What can be wrong with a policy or with a pod that should join the mesh."""

from dataclasses import dataclass

from mesh.api.errors import FieldError
from mesh.errors import UserError
from mesh.routing.table import Provenance


class PolicyError(UserError):
    """The root of this room's errors."""


class DurationError(PolicyError):
    """A text is not a duration."""


class InjectionError(PolicyError):
    """A pod asks for a sidecar that could not work in it."""


@dataclass(frozen=True, slots=True)
class Problems:
    """All that is wrong with one policy; the policy must not be used."""

    about: Provenance
    """The object; `field` is empty."""
    errors: tuple[FieldError, ...]
    """At least one, in the order of the fields."""

    def __str__(self) -> str:
        """One line per error: `VirtualService default/web (web.yaml:14): spec.http[0]: what is wrong, what to do`."""
        return "\n".join(f"{self.about}: {error}" for error in self.errors)
