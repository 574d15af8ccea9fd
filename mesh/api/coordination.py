"""Typed views of coordination.k8s.io/v1: Lease."""

from mesh.api.meta import ObjectView, View


class LeaseSpec(View, frozen=True, kw_only=True):
    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: str = ""
    """RFC 3339 with microseconds, as is renew_time."""
    renew_time: str = ""
    lease_transitions: int = 0


class Lease(ObjectView, frozen=True, kw_only=True):
    spec: LeaseSpec = LeaseSpec()
