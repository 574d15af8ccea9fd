"""Small checks on the fields of policies; each adds to a list of errors and returns a usable value."""

from mesh.api.errors import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, FieldError
from policies.durations import parse_duration
from policies.errors import DurationError
from policies.regexes import regex_problem


class Findings:
    """Errors found so far, in order."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def invalid(self, path: str, message: str) -> None:
        """The value is wrong."""
        self.errors.append(FieldError(path, INVALID, message))

    def required(self, path: str, message: str) -> None:
        """The value is missing."""
        self.errors.append(FieldError(path, REQUIRED, message))

    def duplicate(self, path: str, message: str) -> None:
        """The value stands twice."""
        self.errors.append(FieldError(path, DUPLICATE, message))

    def unsupported(self, path: str, message: str) -> None:
        """The value is none of the known ones."""
        self.errors.append(FieldError(path, NOT_SUPPORTED, message))

    def duration(self, path: str, text: str, *, zero: bool = False) -> float | None:
        """Seconds > 0, or 0 with `zero`; None when `text` is empty or wrong."""
        if not text:
            return None
        try:
            seconds = parse_duration(text)
        except DurationError as exc:
            self.invalid(path, str(exc))
            return None
        if seconds < 0.001 and not (zero and seconds == 0):
            self.invalid(path, f'duration "{text}" is too short: at least 1ms is needed')
            return None
        return seconds

    def regex(self, path: str, pattern: str) -> None:
        """A pattern that RE2 and Python understand alike."""
        if problem := regex_problem(pattern):
            self.invalid(path, problem)

    def at_least(self, path: str, value: int, least: int) -> None:
        """A number with a lower bound."""
        if value < least:
            self.invalid(path, f"{value} is below {least}")

    def between(self, path: str, value: int, least: int, most: int) -> None:
        """A number with two bounds."""
        if not least <= value <= most:
            self.invalid(path, f"{value} is not in {least} to {most}")

    def percent(self, path: str, value: float) -> float:
        """A share; a wrong one becomes 0."""
        if 0 <= value <= 100:
            return value
        self.invalid(path, f"{value:g} is not in 0 to 100")
        return 0.0

    def port(self, path: str, value: int) -> None:
        """A TCP port."""
        self.between(path, value, 1, 65535)
