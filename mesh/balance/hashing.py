"""The hash that requests and endpoints are placed by: XXH64, as Envoy's, so that both proxies agree on who serves a key."""

import xxhash

from mesh.balance.endpoint import Endpoint

hash64 = xxhash.xxh64_intdigest
"""hash64(data, seed=0): 64 bits of some bytes."""

HASH_KEY_LABEL = "hash_key"
"""An endpoint's label that says what it is placed by. Source: Envoy, metadata `envoy.lb`."""


def placing_name(endpoint: Endpoint, *, uses_hostname: bool = False) -> str:
    """What an endpoint is hashed as."""
    for name, value in endpoint.labels:
        if name == HASH_KEY_LABEL:
            return value
    return (uses_hostname and endpoint.hostname) or endpoint.text
