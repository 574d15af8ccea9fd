"""The data-plane proxy. Its hot path is Protocol-based; a request reads one snapshot for its whole life.

Imports no aiohttp. `inbound` and `outbound` do not import each other nor the xDS client.
"""
