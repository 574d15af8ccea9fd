"""The request's hash: for clusters that balance by hash, and for splits that keep a user on one branch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesh.routing.conditions import query_getter
from mesh.routing.cookies import cookie_of, set_cookie_line
from mesh.routing.hashing import HashPolicy, HashSource, combine, hash_text
from sidecar.filters.protocol import QuietFilter

if TYPE_CHECKING:
    from sidecar.exchange import Exchange


class HashFilter(QuietFilter):
    """Sets `exchange.hash_key` from a route's hash policies.

    A cookie is made for a client without one when the policy has a ttl and the hash is used: by a hashing cluster or by the split.
    """

    __slots__ = ("_policies", "_splits")

    def __init__(self, policies: Sequence[HashPolicy], *, splits: bool) -> None:
        self._policies = tuple(policies)
        self._splits = splits

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        hashes: list[int] = []
        for policy in self._policies:
            text = self._text(exchange, policy)
            if text:
                hashes.append(hash_text(text))
                if policy.terminal:
                    break
        exchange.hash_key = key = combine(hashes)
        if self._splits and key is not None:
            compiled = exchange.route.compiled
            assert compiled is not None
            exchange.take_branch(compiled.pick_by(key))
        return True

    def _text(self, exchange: "Exchange", policy: HashPolicy) -> bytes | None:
        head = exchange.template.head
        name = policy.name.encode()
        match policy.source:
            case HashSource.HEADER:
                return head.header(name)
            case HashSource.QUERY:
                return next(iter(query_getter(policy.name)(head)), None)
            case HashSource.SOURCE_IP:
                return exchange.connection.peer_address
            case HashSource.COOKIE:
                found = cookie_of(head.header(b"cookie"), name)
                return found if found is not None else self._make_cookie(exchange, policy)

    def _make_cookie(self, exchange: "Exchange", policy: HashPolicy) -> bytes | None:
        cluster = exchange.branch.cluster
        is_used = self._splits or (cluster is not None and cluster.config.lb_policy.is_hashing)
        if policy.ttl_s is None or not is_used:
            return None
        value = b"%016x" % exchange.plane.rng.getrandbits(64)
        line = set_cookie_line(policy.name, value, ttl_s=policy.ttl_s, path=policy.path, attributes=policy.attributes)
        exchange.added_lines = [*exchange.added_lines, line]
        return value


class HeaderSplitFilter(QuietFilter):
    """A split whose branch is picked by the number in a header: proxies in a row then pick alike. Without a number it is chance."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name.encode()

    def on_request(self, exchange: "Exchange", now: float) -> bool:
        value = exchange.template.head.header(self._name)
        if value is not None and value.isdigit() and len(value) <= 20:
            compiled = exchange.route.compiled
            assert compiled is not None
            exchange.take_branch(compiled.pick_by(int(value)))
        return True
