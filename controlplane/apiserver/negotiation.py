"""Which form of an answer the client wants, from its Accept header."""

from dataclasses import dataclass
from enum import Enum


class Form(Enum):
    """How an object or list is shown."""

    OBJECT = "Object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One acceptable media type with its parameters."""

    media_type: str
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        return dict(self.parameters).get(name, "")


def accepted(header: str) -> tuple[Accepted, ...]:
    """The types of an Accept header in its order (q is ignored: no client of this API uses it to reorder)."""
    found = []
    for part in header[:4096].split(","):
        media_type, *parameters = part.strip().split(";")
        pairs = (one.strip().partition("=") for one in parameters)
        found.append(Accepted(media_type.strip().lower(), tuple((name, value) for name, _, value in pairs)))
    return tuple(found)


def form_of(header: str) -> Form:
    """The first form we can give; the plain object when the header asks for nothing we know."""
    if "as=" not in header:
        return Form.OBJECT
    for one in accepted(header):
        if one.media_type not in ("application/json", "*/*", "application/*"):
            continue
        match one.get("as"):
            case "":
                return Form.OBJECT
            case "Table" if one.get("v") in ("v1", ""):
                return Form.TABLE
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return Form.METADATA
    return Form.OBJECT
