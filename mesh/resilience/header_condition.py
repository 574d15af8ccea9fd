"""A condition on one header, as retry policies use it. Pure; evaluated only when a retry is at stake."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mesh.resilience.errors import ResilienceConfigError

HeaderOf = Callable[[bytes], bytes | None]
"""A header's value (its values joined with a comma) by lower-case name; None when it does not occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderCondition:
    """Holds or not for a header block. Source: envoy.config.route.v3.HeaderMatcher."""

    name: str
    """Lower case."""
    pattern: str | None = None
    """A regular expression for the whole value; None: the header must be present."""
    invert: bool = False
    """The condition must not hold. A missing header fails a pattern also then, unless `missing_as_empty`."""
    missing_as_empty: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile((self.pattern or "").encode())
        except re.error as exc:
            raise ResilienceConfigError(f'header "{self.name}": regular expression "{self.pattern}": {exc}') from exc

    def holds(self, header: HeaderOf) -> bool:
        """Whether it holds for the block that `header` reads."""
        value = header(self.name.encode())
        if value is None and self.missing_as_empty:
            value = b""
        if self.pattern is None:
            return (value is not None) != self.invert
        return value is not None and (re.fullmatch(self.pattern.encode(), value) is not None) != self.invert
