"""The way of a write: prepare, check, default, admit, validate, store with compare-and-swap; again if it lost a race."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from controlplane.apiserver import errors
from controlplane.apiserver.admission import Admission, AdmissionRequest, Operation
from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.deletion import (
    DeleteOptions,
    Mark,
    Nothing,
    Remove,
    check_preconditions,
    is_to_be_removed,
    plan_deletion,
)
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.objects import is_same, parse
from controlplane.apiserver.request import WriteOptions
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.storage import Lost, ObjectStorage, Written
from controlplane.apiserver.strategy import prepare_create, prepare_update, timestamp
from controlplane.store.protocol import KeyValue
from mesh.api.resources import Json, Resource
from mesh.api.tree import without_nulls
from mesh.clock import Clock

MAX_NAME = 253
"""Characters. Source: Kubernetes, "Object Names and IDs"."""
MAX_TRIES = 16
"""Races a write may lose before the client hears of it (409)."""
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_GENERATED_PREFIX = 63 - _SUFFIX_LENGTH
_PARTIAL = frozenset({"status", "finalize", "binding"})
"""Subresources that change a part no schema, default or plugin is about."""
_ENVELOPE = ("apiVersion", "kind", "metadata")

Change = Callable[[Json], Json]
"""From the stored object (the callee's to keep) to the one asked for. Raises ApiStatusError. May be called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One write as asked for."""

    kind: Kind
    namespace: str
    name: str
    """"" for a create, whose object says it."""
    identity: Identity
    subresource: str = ""
    options: WriteOptions = field(default_factory=WriteOptions)
    warnings: list[str] = field(default_factory=list)
    """What the answer is to warn of; filled on the way."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did."""

    obj: Json
    is_gone: bool
    """False: it is marked and waits for its finalizers or its node."""


class ObjectWriter:
    """Creates, changes and deletes objects."""

    def __init__(
        self, storage: ObjectStorage, rules: Rules, plugins: Sequence[Admission], clock: Clock, rng: random.Random
    ) -> None:
        self._storage = storage
        self._rules = rules
        self._plugins = tuple(plugins)
        self._clock = clock
        self._rng = rng

    async def create(self, call: Call, make: Callable[[], Json]) -> Json:
        """Store a new object; `make` gives a fresh copy of what was sent. Raises ApiStatusError."""
        for _try in range(MAX_TRIES):
            obj = make()
            is_generated = self._name(call, obj)
            prepare_create(call.kind, obj, uid=str(uuid4()), now=timestamp(self._clock.wall()))
            request = await self._admit(call, Operation.CREATE, obj, None)
            obj = request.object
            name = obj["metadata"]["name"]
            if call.options.dry_run:
                if await self._storage.read(call.kind, call.namespace, name) is not None:
                    raise errors.already_exists(call.kind.resource, name)
                return obj
            outcome = await self._storage.create(call.kind, obj, request.claims)
            if isinstance(outcome, Written):
                return outcome.obj
            if outcome.is_object and not is_generated:
                raise errors.already_exists(call.kind.resource, name)
        raise errors.conflict(call.kind.resource, call.name, "no free name or address was found; try again")

    async def update(self, call: Call, change: Change) -> Json:
        """Change a stored object. Raises ApiStatusError, 409 when `change`'s resourceVersion is not the stored one's."""
        for _try in range(MAX_TRIES):
            read = await self._read(call.kind, call.namespace, call.name)
            old = parse(call.kind.resource, read)
            wanted = change(parse(call.kind.resource, read))
            _check_identity(call, wanted, old)
            wanted["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            request = await self._admit_update(call, wanted, old)
            new = request.object
            if call.options.dry_run or is_same(new, old):
                return new
            outcome = await self._store_update(call.kind, new, read, request)
            if isinstance(outcome, Written):
                return outcome.obj
        raise errors.modified(call.kind.resource, call.name)

    async def delete(self, call: Call, options: DeleteOptions) -> Deleted:
        """Remove an object or mark it for removal. Raises ApiStatusError."""
        for _try in range(MAX_TRIES):
            read = await self._read(call.kind, call.namespace, call.name)
            old = parse(call.kind.resource, read)
            check_preconditions(call.kind, old, options)
            request = self._request(call, Operation.DELETE, parse(call.kind.resource, read), None)
            for plugin in self._plugins:
                await plugin.admit(request)
            plan = plan_deletion(call.kind, old, options, now_s=self._clock.wall())
            outcome: Written | Lost
            match plan:
                case Nothing():
                    return Deleted(old, is_gone=False)
                case Remove() if options.dry_run:
                    return Deleted(old, is_gone=True)
                case Mark(obj) if options.dry_run:
                    return Deleted(obj, is_gone=False)
                case Remove():
                    outcome = await self._storage.remove(old, read, request.releases)
                case Mark(obj):
                    outcome = await self._storage.replace(call.kind, obj, read)
            if isinstance(outcome, Written):
                return Deleted(outcome.obj, is_gone=isinstance(plan, Remove))
        raise errors.modified(call.kind.resource, call.name)

    async def _read(self, kind: Kind, namespace: str, name: str) -> KeyValue:
        read = await self._storage.read(kind, namespace, name)
        if read is None:
            raise errors.not_found(kind.resource, name)
        return read

    def _name(self, call: Call, obj: Json) -> bool:
        """Settle name and namespace of a new object, in place. True if the name was made here."""
        metadata = obj["metadata"]
        if call.kind.resource.is_namespaced:
            metadata["namespace"] = call.namespace
        else:
            metadata.pop("namespace", None)
        if metadata.get("name"):
            check_name(call.kind.resource, metadata["name"])
            return False
        prefix = metadata.get("generateName")
        if not prefix or not isinstance(prefix, str):
            missing = errors.cause(
                "metadata.name", "Required value: name or generateName is required", "FieldValueRequired"
            )
            raise errors.invalid(call.kind.resource, "", [missing])
        suffix = "".join(self._rng.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))
        metadata["name"] = prefix[:_MAX_GENERATED_PREFIX] + suffix
        check_name(call.kind.resource, metadata["name"])
        return True

    def _request(self, call: Call, operation: Operation, obj: Json, old: Json | None) -> AdmissionRequest:
        return AdmissionRequest(
            operation=operation,
            resource=call.kind.resource,
            subresource=call.subresource,
            namespace=call.namespace,
            name=obj["metadata"].get("name", call.name),
            object=obj,
            old_object=old,
            identity=call.identity,
            dry_run=call.options.dry_run,
            lookup=self._storage.lookup,
        )

    async def _admit(self, call: Call, operation: Operation, obj: Json, old: Json | None) -> AdmissionRequest:
        """Through schema (creates; updates were checked as sent), defaults, plugins, defaults again, and validation."""
        if old is None:
            self._rules.check_schema(call.kind, obj, call.options.field_validation, call.warnings)
        request = self._request(call, operation, self._rules.defaulted(call.kind, obj), old)
        for plugin in self._plugins:
            request.object = await plugin.admit(request)
        if old is None:
            request.object = self._rules.defaulted(call.kind, request.object)
        self._rules.validate(call.kind, request.object, old)
        return request

    async def _admit_update(self, call: Call, wanted: Json, old: Json) -> AdmissionRequest:
        """As much of `_admit` as the change needs: what is stored has passed it all before."""
        if call.subresource in _PARTIAL:
            if not isinstance(wanted.get("status", {}), dict):
                raise errors.bad_request("status is not an object")
            return self._request(call, Operation.UPDATE, prepare_update(call.kind, wanted, old, call.subresource), old)
        has_new_content = _differs_beyond_metadata(call.kind, wanted, old)
        checked = wanted if has_new_content else {name: wanted[name] for name in _ENVELOPE}
        self._rules.check_schema(
            call.kind, checked, call.options.field_validation, call.warnings, is_whole=has_new_content
        )
        new = prepare_update(call.kind, wanted, old, call.subresource)
        if has_new_content:
            return await self._admit(call, Operation.UPDATE, new, old)
        new["metadata"] = without_nulls(new["metadata"])
        request = self._request(call, Operation.UPDATE, new, old)
        for plugin in self._plugins:
            request.object = await plugin.admit(request)
        self._rules.validate(call.kind, request.object, old)
        return request

    async def _store_update(self, kind: Kind, new: Json, read: KeyValue, request: AdmissionRequest) -> Written | Lost:
        if not is_to_be_removed(kind, new):
            return await self._storage.replace(kind, new, read, request.claims, request.releases)
        leaving = AdmissionRequest(
            operation=Operation.DELETE,
            resource=request.resource,
            subresource="",
            namespace=request.namespace,
            name=request.name,
            object=parse(kind.resource, read),
            old_object=None,
            identity=request.identity,
            dry_run=False,
            lookup=request.lookup,
        )
        for plugin in self._plugins:
            await plugin.admit(leaving)
        return await self._storage.remove(new, read, leaving.releases)


def _differs_beyond_metadata(kind: Kind, wanted: Json, old: Json) -> bool:
    """Whether anything is asked for that schema and defaults have not seen; a status that is kept anyway doesn't count."""
    ignored = {"metadata", "status"} if kind.has_status else {"metadata"}
    names = (wanted.keys() | old.keys()) - ignored
    return any(wanted.get(name) != old.get(name) for name in names)


def check_name(resource: Resource, name: str) -> None:
    """A name becomes a part of a URL and of a key, whatever else the kind wants of it. Raises ApiStatusError (422)."""
    if name in (".", "..") or len(name) > MAX_NAME or any(c in "/%" or not c.isprintable() for c in name):
        message = (
            f"Invalid value: {name!r}: may not be '.' or '..', contain '/' or '%', or exceed {MAX_NAME} characters"
        )
        raise errors.invalid(resource, name, [errors.cause("metadata.name", message)])


def _check_identity(call: Call, wanted: Json, old: Json) -> None:
    """The object sent must be the object named, and of the version stored if it says one."""
    metadata = wanted.get("metadata")
    if not isinstance(metadata, dict):
        raise errors.bad_request("metadata is missing or not an object")
    metadata.setdefault("name", call.name)
    if metadata["name"] != call.name:
        raise errors.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({call.name})"
        )
    if call.kind.resource.is_namespaced and metadata.setdefault("namespace", call.namespace) != call.namespace:
        raise errors.bad_request(
            f"the namespace of the object ({metadata['namespace']}) does not match the namespace on the URL "
            f"({call.namespace})"
        )
    uid, stored = metadata.get("uid"), old["metadata"]
    if uid and uid != stored["uid"]:
        why = f"the UID in the precondition ({uid}) does not match the UID in record ({stored['uid']})"
        raise errors.conflict(call.kind.resource, call.name, why)
    version = metadata.get("resourceVersion")
    if version and version != stored["resourceVersion"]:
        raise errors.modified(call.kind.resource, call.name)
