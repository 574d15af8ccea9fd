"""Amounts of cpu, memory and other resources."""

from typing import Any

from mesh.api.errors import FieldError, QuantityError, invalid
from mesh.api.quantity import parse_quantity
from mesh.api.resources import Json
from mesh.api.tree import child_path
from mesh.api.validation_names import check_qualified_name


def check_quantity(value: Any, path: str) -> list[FieldError]:
    """A quantity of at least 0."""
    try:
        amount = parse_quantity(value)
    except QuantityError as exc:
        return [invalid(path, value, str(exc))]
    return [] if amount >= 0 else [invalid(path, value, "must be greater than or equal to 0")]


def check_resources(resources: Json, path: str) -> list[FieldError]:
    """requests and limits of a container: valid, and no request above its limit."""
    errors: list[FieldError] = []
    for field in ("limits", "requests"):
        for name, amount in (resources.get(field) or {}).items():
            place = child_path(f"{path}.{field}", name)
            errors += check_qualified_name(name, place) + check_quantity(amount, place)
    if errors:
        return errors
    limits = resources.get("limits") or {}
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and parse_quantity(amount) > parse_quantity(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            errors.append(invalid(child_path(f"{path}.requests", name), amount, detail))
    return errors
