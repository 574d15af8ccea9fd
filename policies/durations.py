"""Durations as policies write them: `1.5s`, `250ms`, `1h10m`. Source: Go's time.ParseDuration, without signs."""

import re

from policies.errors import DurationError

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_LONGEST_S = 365 * 86400.0


def parse_duration(text: str) -> float:
    """Seconds, >= 0. `0` needs no unit. Raises DurationError, also for more than a year."""
    if text == "0":
        return 0.0
    position, total = 0, 0.0
    while (part := _PART.match(text, position)) is not None:
        total += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if not text or position != len(text):
        if text.startswith("-"):
            raise DurationError(f'duration "{text}" is negative: give a positive one, such as 1.5s')
        raise DurationError(f'"{text}" is not a duration: write a number with a unit, such as 1.5s, 250ms or 1h10m')
    if total > _LONGEST_S:
        raise DurationError(f'duration "{text}" is longer than a year')
    return total
