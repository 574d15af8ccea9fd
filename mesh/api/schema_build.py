"""Words for writing OpenAPI v3 schemas down in Python."""

from typing import Any

from mesh.api.resources import Json

_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+$"


def object_of(description: str, required: tuple[str, ...] = (), /, **properties: Json) -> Json:
    """An object with exactly these fields."""
    schema: Json = {"type": "object", "description": description, "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def text(description: str, **more: Any) -> Json:
    """A string; `more` are further keywords."""
    return {"type": "string", "description": description, **more}


def number(description: str, low: int = 0, high: int = 2**31 - 1, **more: Any) -> Json:
    """An integer between two bounds."""
    return {"type": "integer", "format": "int64", "minimum": low, "maximum": high, "description": description, **more}


def flag(description: str) -> Json:
    """A boolean."""
    return {"type": "boolean", "description": description}


def list_of(description: str, items: Json, **more: Any) -> Json:
    """An array of equal items."""
    return {"type": "array", "description": description, "items": items, **more}


def map_of(description: str, values: Json) -> Json:
    """An object with any keys and equal values."""
    return {"type": "object", "description": description, "additionalProperties": values}


def duration(description: str, **more: Any) -> Json:
    """A duration as Go writes it."""
    return text(f"{description} A duration such as 1.5s, 250ms or 1h10m.", pattern=_DURATION_PATTERN, **more)


TEXTS = {"type": "string"}
