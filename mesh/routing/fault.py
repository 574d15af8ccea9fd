"""Faults on purpose, for a part of a route's requests, as a value."""

from dataclasses import dataclass

from mesh.resilience.fault import FaultPolicy
from mesh.routing.match import HeaderMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """Source: Envoy filters.http.fault.v3.HTTPFault."""

    policy: FaultPolicy
    headers: tuple[HeaderMatch, ...] = ()
    """Only requests that meet all of these."""
    upstream_cluster: str = ""
    """Only requests on their way to this cluster. Empty: any."""
