"""One resource type on a delta stream: what we asked for, what we hold, what we owe an answer. Pure.

Source: xDS protocol, "Incremental xDS". A stream begins with `start`; afterwards each change of interest and each response leads to
at most one request. Nothing here knows about protobuf or gRPC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One DeltaDiscoveryRequest."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    """Resources we hold from an earlier stream: name -> version. Only in a stream's first request."""
    nonce: str = ""
    """The response that this answers; empty: none."""
    error: str = ""
    """Why it was rejected (NACK); empty with a nonce: accepted (ACK)."""


class Subscription:
    """The state of one type. Versions outlive streams, nonces don't."""

    def __init__(self, type_url: str, *, is_wildcard: bool) -> None:
        self.type_url = type_url
        self.is_wildcard = is_wildcard
        """Everything the server has for us; names are then not used."""
        self._wanted: frozenset[str] = frozenset()
        self._versions: dict[str, str] = {}
        self._unanswered: list[str] = []
        self._has_started = False

    @property
    def versions(self) -> Mapping[str, str]:
        """What we hold: name -> version."""
        return self._versions

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Nonces that are owed an ACK or NACK, oldest first."""
        return tuple(self._unanswered)

    def start(self) -> Request | None:
        """The first request of a new stream; None while there is nothing to ask for."""
        self._unanswered.clear()
        self._has_started = self.is_wildcard or bool(self._wanted)
        if not self._has_started:
            return None
        names = () if self.is_wildcard else tuple(sorted(self._wanted))
        return Request(type_url=self.type_url, subscribe=names, initial_versions=dict(self._versions))

    def want(self, names: Iterable[str]) -> Request | None:
        """Be interested in exactly `names`. Returns what to send, if anything."""
        wanted = frozenset(names)
        fresh, gone = wanted - self._wanted, self._wanted - wanted
        self._wanted = wanted
        for name in gone:
            self._versions.pop(name, None)
        if not self._has_started:
            return self.start()
        if not fresh and not gone:
            return None
        return Request(type_url=self.type_url, subscribe=tuple(sorted(fresh)), unsubscribe=tuple(sorted(gone)))

    def received(self, nonce: str) -> None:
        """A response came; it is owed an answer."""
        self._unanswered.append(nonce)

    def hold(self, name: str, version: str) -> None:
        """A resource of a response was taken over."""
        if self.is_wildcard or name in self._wanted:
            self._versions[name] = version

    def drop(self, name: str) -> None:
        """The server removed a resource."""
        self._versions.pop(name, None)

    def forget_versions(self) -> None:
        """What was taken over had to be undone: ask for all of it again on the next stream."""
        self._versions.clear()

    def answer(self, nonce: str, error: str = "") -> Request | None:
        """ACK, or NACK with `error`. None when the nonce is not of this stream or was answered already."""
        if nonce not in self._unanswered:
            return None
        self._unanswered.remove(nonce)
        return Request(type_url=self.type_url, nonce=nonce, error=error)
