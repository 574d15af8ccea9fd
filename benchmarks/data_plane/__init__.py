"""The data plane against Envoy, HAProxy and nginx: cases, equal configurations, alternating windows, goals, plots.

A case says what is measured, a set-up how the proxies are configured; both are values. `command` runs the cases and keeps each
as one record in docs/benchmarks/data_plane.json, from which `benchmarks.report` makes every table and picture.
"""
