"""Retry conditions and back-off, budgets, outlier detection, circuit breaker limits, timeouts. Pure.

Time and chance come in as arguments; decisions are returned, never acted on here.
"""
