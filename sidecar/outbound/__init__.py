"""Requests that leave this pod: original destination and Host to route, cluster, endpoint."""
