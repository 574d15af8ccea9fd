"""Time as an argument: the two clocks, and one a test can turn by hand."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """A source of time. Both readings are seconds."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until `advance` is called. For tests."""

    monotonic_s: float = 1000.0
    wall_s: float = 1_700_000_000.0

    def now(self) -> float:
        return self.monotonic_s

    def wall(self) -> float:
        return self.wall_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds` (>= 0)."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: advance({seconds})")
        self.monotonic_s += seconds
        self.wall_s += seconds
