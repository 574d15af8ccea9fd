"""What one ADS stream has asked for, holds and still needs. Pure: requests in, responses out, no I/O.

Both variants of the protocol share the state. Rules kept here (source: xDS protocol; measured with Envoy 1.40):
- one response of a type is outstanding at a time; what changes meanwhile is sent after its ACK, latest only. But names newly
  asked for are answered at once (delta): a client may hold its ACKs back until it has all that its clusters refer to;
- additions go in the order clusters, endpoints, listeners, routes; listeners and routes that change wait until the clusters
  and endpoints before them are acknowledged, clusters are removed after the routes that named them are;
- endpoints are sent again with a cluster that changed, or Envoy warms it for 15 s;
- what was refused is not sent again until it changes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.discovery.resources import CDS, EDS, IN_ORDER, LDS, RDS, Resource, Table, unknown_resource
from controlplane.discovery.snapshot import NO_TABLES, Tables

WILDCARD = "*"
_MAX_NAMES = 50_000
"""Names one stream may ask for per type; more are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of either variant, as far as it concerns one type."""

    type_url: str
    nonce: str = ""
    error: str = ""
    """Not empty: the response with this nonce was refused, and why."""
    subscribe: tuple[str, ...] = ()
    """Delta: names to add."""
    unsubscribe: tuple[str, ...] = ()
    """Delta: names to drop."""
    names: tuple[str, ...] = ()
    """State of the world: all the names asked for."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Delta, first request: name -> version the client holds from an earlier stream."""
    version: str = ""
    """State of the world: the version it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What to send of one type."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    """Delta: what changed. State of the world: everything for listeners and clusters, else what changed."""
    removed: tuple[str, ...] = ()


@dataclass(slots=True)
class TypeState:
    """One type on one stream."""

    is_subscribed: bool = False
    is_wildcard: bool = False
    names: set[str] = field(default_factory=set)
    """Asked for by name."""
    asked: set[str] = field(default_factory=set)
    """Names that must be answered even if nothing about them is new."""
    held: dict[str, Resource] = field(default_factory=dict)
    """What the client has, or was sent and refused."""
    synced: Table | None = None
    """The table that `held` was last brought in line with; None: look again."""
    nonce: str = ""
    """Of the last response."""
    outstanding: set[str] = field(default_factory=set)
    """Nonces that have not been answered."""
    was_sent: bool = False
    sent_version: str = ""
    acked_version: str = ""
    error: str = ""
    """Why one of the last responses was refused; "" when all were acknowledged."""

    @property
    def in_flight(self) -> bool:
        """Something that was sent has not been answered."""
        return bool(self.outstanding)


@dataclass(slots=True)
class _Diff:
    changed: list[Resource] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


class StreamState:
    """One stream. `on_request` takes what comes, `next_responses` says what to send."""

    def __init__(self, *, is_delta: bool) -> None:
        self.is_delta = is_delta
        self.types: dict[str, TypeState] = {type_url: TypeState() for type_url in IN_ORDER}
        self._counter = 0
        self._tables: Tables = NO_TABLES

    def on_request(self, request: Request) -> bool:
        """Take a request. True when it settles or refuses the response that was outstanding."""
        state = self.types.get(request.type_url)
        if state is None:
            return False
        is_first = not state.is_subscribed
        is_stale = not is_first and bool(request.nonce) and request.nonce not in (state.nonce, *state.outstanding)
        settles = self._settle(state, request) if not is_stale else False
        if self.is_delta:
            self._subscribe(state, request, is_first=is_first)
        elif not is_stale:
            self._set_names(state, request, is_first=is_first)
        state.is_subscribed = True
        return settles

    def _settle(self, state: TypeState, request: Request) -> bool:
        if request.nonce not in state.outstanding:
            return False
        state.outstanding.discard(request.nonce)
        state.error = request.error or state.error
        if not state.outstanding and not state.error:
            state.acked_version = state.sent_version
        return True

    def _subscribe(self, state: TypeState, request: Request, *, is_first: bool) -> None:
        for name, version in request.known.items():
            if len(state.held) < _MAX_NAMES:
                state.held[name] = unknown_resource(name, version)
        if is_first and request.type_url in (CDS, LDS) and not request.subscribe:
            state.is_wildcard = True
        for name in request.subscribe:
            if name == WILDCARD:
                state.is_wildcard = True
            elif len(state.names) < _MAX_NAMES:
                state.names.add(name)
                if not (is_first and name in request.known):
                    state.asked.add(name)
        for name in request.unsubscribe:
            if name == WILDCARD:
                state.is_wildcard = False
            state.names.discard(name)
            state.asked.discard(name)
            if not state.is_wildcard:
                state.held.pop(name, None)
        if is_first or request.subscribe or request.unsubscribe:
            state.synced = None

    def _set_names(self, state: TypeState, request: Request, *, is_first: bool) -> None:
        """An empty list is a wildcard only while no name was ever given; afterwards it means nothing at all."""
        names = set(request.names[:_MAX_NAMES])
        is_wildcard = WILDCARD in names or (not names and not state.names and request.type_url in (CDS, LDS))
        names.discard(WILDCARD)
        if is_first:
            state.is_wildcard = is_wildcard
            if request.version and request.version == self._version_of(
                request.type_url, names, is_wildcard=is_wildcard
            ):
                state.held = {r.name: r for r in self._wanted(request.type_url, names, is_wildcard=is_wildcard)}
                state.names = names
                state.sent_version = state.acked_version = request.version
                return
        elif names == state.names:
            return
        else:
            state.is_wildcard = is_wildcard and state.is_wildcard
        state.asked |= names - state.names
        for gone in state.names - names:
            state.held.pop(gone, None)
        state.asked &= names
        state.names = names
        state.synced = None

    def show(self, tables: Tables) -> None:
        """From now on the client should have these tables."""
        self._tables = tables

    def next_responses(self, *, hurry: bool = False) -> list[Response]:
        """What can be sent now, in order. `hurry`: don't wait for acknowledgements that others depend on."""
        responses: list[Response] = []
        for type_url in IN_ORDER:
            state = self.types[type_url]
            if not state.is_subscribed or (state.in_flight and not (self.is_delta and state.asked)):
                continue
            if type_url in (LDS, RDS) and not hurry and self._must_wait(type_url):
                continue
            diff = self._diff(type_url, state, keeps_removed=type_url in (CDS, EDS) and not self._routes_settled())
            if self._is_worth_sending(type_url, state, diff):
                responses.append(self._respond(type_url, state, diff))
            elif state.held and not state.sent_version:  # all of it came by an earlier stream
                state.sent_version = state.acked_version = _version(state.held.values())
        return responses

    def _is_worth_sending(self, type_url: str, state: TypeState, diff: _Diff) -> bool:
        if diff.changed or state.asked:
            return True
        if diff.removed:
            if self.is_delta or type_url in (CDS, LDS):
                return True
            for name in diff.removed:  # the other variant has no word for it: a partial answer says nothing by absence
                state.held.pop(name, None)
            return False
        # A wildcard with nothing to send is still told so: the client waits for its first answer.
        return state.is_wildcard and not state.was_sent and not state.sent_version and not state.held

    def _must_wait(self, type_url: str) -> bool:
        """A client that has listeners and routes keeps using them until the clusters for the new ones are there."""
        if not self.types[type_url].was_sent and not self.types[type_url].held:
            return False
        if self.types[type_url].asked:
            return False
        return any(
            self.types[before].is_subscribed and (self.types[before].in_flight or self._has_changes(before))
            for before in (CDS, EDS)
        )

    def _has_changes(self, type_url: str) -> bool:
        state = self.types[type_url]
        return state.synced is not self._tables[type_url] and bool(
            self._changes(type_url, state).changed or state.asked
        )

    def _routes_settled(self) -> bool:
        """Listeners and routes are what they should be, and acknowledged: nothing names the old clusters any more."""
        return all(
            not state.is_subscribed or (not state.in_flight and not state.error and not self._has_changes(type_url))
            for type_url in (LDS, RDS)
            for state in (self.types[type_url],)
        )

    def _wanted(self, type_url: str, names: set[str], *, is_wildcard: bool) -> Iterable[Resource]:
        table = self._tables[type_url]
        return table.values() if is_wildcard else [table[name] for name in names if name in table]

    def _changes(self, type_url: str, state: TypeState) -> _Diff:
        table = self._tables[type_url]
        diff = _Diff()
        for resource in self._wanted(type_url, state.names, is_wildcard=state.is_wildcard):
            held = state.held.get(resource.name)
            if held is None or held.version != resource.version:
                diff.changed.append(resource)
        diff.removed = [name for name in state.held if name not in table]
        return diff

    def _diff(self, type_url: str, state: TypeState, *, keeps_removed: bool) -> _Diff:
        table = self._tables[type_url]
        if state.synced is table and not state.asked:
            return _Diff()
        diff = self._changes(type_url, state)
        if keeps_removed and diff.removed:
            diff.removed = []
        else:
            state.synced = table
        known = {resource.name for resource in diff.changed}
        for name in sorted(state.asked - known):
            if name in table:
                diff.changed.append(table[name])
            elif name not in diff.removed:
                diff.removed.append(name)
        return diff

    def _respond(self, type_url: str, state: TypeState, diff: _Diff) -> Response:
        for resource in diff.changed:
            state.held[resource.name] = resource
        for name in diff.removed:
            state.held.pop(name, None)
        state.asked.clear()
        if type_url == CDS:
            self._repeat_endpoints(diff.changed)
        self._counter += 1
        state.nonce = f"{self._counter:x}"
        if not state.outstanding:
            state.error = ""
        state.outstanding.add(state.nonce)
        state.was_sent = True
        state.sent_version = _version(state.held.values()) if not self.is_delta else state.nonce
        resources: Sequence[Resource] = diff.changed
        if not self.is_delta and type_url in (CDS, LDS):
            resources = [resource for resource in state.held.values() if resource.sotw_frame]
        return Response(
            type_url=type_url,
            nonce=state.nonce,
            version=state.sent_version,
            resources=tuple(resources),
            removed=tuple(diff.removed),
        )

    def _repeat_endpoints(self, clusters: Iterable[Resource]) -> None:
        endpoints = self.types[EDS]
        for cluster in clusters:
            if cluster.name in endpoints.names and cluster.name in endpoints.held:
                endpoints.asked.add(cluster.name)

    def _version_of(self, type_url: str, names: set[str], *, is_wildcard: bool) -> str:
        return _version(self._wanted(type_url, names, is_wildcard=is_wildcard))

    @property
    def is_settled(self) -> bool:
        """Everything asked for has been sent and answered (acknowledged or refused); not before it has asked for anything."""
        if not any(state.is_subscribed for state in self.types.values()):
            return False
        routes_refused = bool(self.types[LDS].error or self.types[RDS].error)  # then old clusters stay on purpose
        return all(
            not state.is_subscribed
            or (
                not state.in_flight
                and (state.synced is self._tables[type_url] or not self._differs(type_url, routes_refused))
            )
            for type_url, state in self.types.items()
        )

    def _differs(self, type_url: str, keeps_removed: bool) -> bool:
        state = self.types[type_url]
        diff = self._changes(type_url, state)
        return bool(diff.changed or state.asked or (diff.removed and not (keeps_removed and type_url in (CDS, EDS))))

    @property
    def errors(self) -> dict[str, str]:
        """type URL -> why the last response was refused."""
        return {type_url: state.error for type_url, state in self.types.items() if state.error}


def _version(resources: Iterable[Resource]) -> str:
    """One text for a whole set; equal sets give equal texts, in any process."""
    digest = hashlib.blake2b(digest_size=8)
    for line in sorted(f"{resource.name}={resource.version}\n" for resource in resources):
        digest.update(line.encode())
    return digest.hexdigest()
