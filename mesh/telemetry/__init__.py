"""Metric names, histograms, trace context and span export.

Label sets are bounded. Nothing here knows a request's route; values are handed in.
"""
