"""The node agent (kubelet): pod workers, probes, status, heartbeats, the kubelet API.

Decisions are pure (`plan`, `status`, `probes`); the worker, the prober and the server act.
"""
