"""Changes to header blocks, as values."""

import enum
from dataclasses import dataclass


class Presence(enum.Enum):
    """What a header change asks of the header it changes."""

    ANY = "any"
    ABSENT = "absent"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderValue:
    """A header to add. The value is literal: formatting with %VARIABLES% must have been refused by the decoder.

    Envoy's four append actions: `append`, ADD_IF_ABSENT as `when` ABSENT, OVERWRITE_IF_EXISTS as `when` PRESENT, and neither.
    """

    name: str
    value: str
    append: bool = False
    """Keep what is there and add another line; otherwise replace it."""
    when: Presence = Presence.ANY
    """Only if the block (before the changes of this level) has the header, or has it not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderMutation:
    """Changes to a header block: first removals, then additions."""

    add: tuple[HeaderValue, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


NO_MUTATION = HeaderMutation()
