"""What a request is hashed by, and how. The hash picks an endpoint (ring hash, maglev) or the branch of a split."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

import xxhash


class HashSource(enum.Enum):
    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source_ip"
    QUERY = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPolicy:
    """One ingredient of a request's hash. Source: Envoy RouteAction.HashPolicy."""

    source: HashSource
    name: str = ""
    """Of the header (lower case), cookie or query parameter."""
    ttl_s: int | None = None
    """COOKIE: make the cookie when the client has none, for this long; 0: for its session. None: never make one."""
    path: str = ""
    """COOKIE: the made cookie's Path; empty: none."""
    attributes: tuple[tuple[str, str], ...] = ()
    """COOKIE: further attributes of the made cookie; an empty value is a bare attribute, such as HttpOnly."""
    terminal: bool = False
    """When this one gives a hash, the later ones are not asked."""


def hash_text(text: bytes) -> int:
    """64 bits that are the same in every process, and in Envoy: both proxies lead a key to the same endpoint."""
    return xxhash.xxh64_intdigest(text)


def combine(hashes: Iterable[int]) -> int | None:
    """Several ingredients as one hash, order mattering; None when there are none. Source: Envoy HashPolicyImpl."""
    combined: int | None = None
    for one in hashes:
        combined = one if combined is None else (((combined << 1) | (combined >> 63)) & 0xFFFFFFFFFFFFFFFF) ^ one
    return combined
