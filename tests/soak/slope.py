"""Whether a series of measurements is flat. Pure."""

from collections.abc import Sequence


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """How much the straight line of best fit grows from the first to the last (time, value). At least two times must differ."""
    count = len(samples)
    mean_time = sum(time for time, _ in samples) / count
    mean_value = sum(value for _, value in samples) / count
    spread = sum((time - mean_time) ** 2 for time, _ in samples)
    slope = sum((time - mean_time) * (value - mean_value) for time, value in samples) / spread
    return slope * (samples[-1][0] - samples[0][0])
