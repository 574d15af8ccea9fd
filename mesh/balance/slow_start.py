"""Slow start: how much of its weight an endpoint has while it warms up. Source: Envoy, "Slow start mode"."""

import math

from mesh.balance.config import SlowStartConfig


def slow_start_factor(config: SlowStartConfig, age_s: float) -> float:
    """From min_weight_percent to 1, by the time since the endpoint appeared or became healthy again."""
    share = max(age_s, 0.001) / config.window_s
    if share >= 1.0:
        return 1.0
    return max(math.pow(share, 1.0 / config.aggression), config.min_weight_percent / 100.0)
