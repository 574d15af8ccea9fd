"""Copies of requests, as values."""

from dataclasses import dataclass

from mesh.routing.headers import NO_MUTATION, HeaderMutation


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Send a copy of some requests elsewhere and throw the answers away. Source: Envoy RouteAction.RequestMirrorPolicy."""

    cluster: str
    share: float = 1.0
    """Of the requests, by chance. 0 to 1. Source: runtime_fraction."""
    keeps_host: bool = False
    """Leave the Host as it is; otherwise "-shadow" is appended to it. Source: disable_shadow_host_suffix_append."""
    host_rewrite: str | None = None
    """The Host of the copies, without suffix."""
    request_headers: HeaderMutation = NO_MUTATION
