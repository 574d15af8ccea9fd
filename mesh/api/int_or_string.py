"""Numbers that may be given as percentages (maxSurge, maxUnavailable)."""

import re

from mesh.api.errors import ApiObjectError

_PERCENT = re.compile(r"([0-9]{1,9})%")


def is_percent(value: object) -> bool:
    """A text like `25%`."""
    return isinstance(value, str) and _PERCENT.fullmatch(value) is not None


def resolve_percent(value: int | str, total: int, *, round_up: bool) -> int:
    """`value` itself, or that percentage of `total`, rounded up or down. Raises ApiObjectError for any other text."""
    if isinstance(value, int):
        return value
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise ApiObjectError(f'"{value}" is neither a number nor a percentage such as 25%')
    product = int(match[1]) * total
    return -(-product // 100) if round_up else product // 100
