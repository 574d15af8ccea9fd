"""CustomResourceDefinitions: kinds that come and go while the server runs."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence

import orjson

from controlplane.apiserver import errors
from controlplane.apiserver.admission import AdmissionRequest, Operation
from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.deletion import DeleteOptions
from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.home import MASTERS
from controlplane.apiserver.kinds import Kind, KindRegistry, kinds_of
from controlplane.apiserver.objects import collection_prefix, parse, prefix_end
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.strategy import CRD_FINALIZER, timestamp
from controlplane.apiserver.tables.paths import keys_of
from controlplane.apiserver.writer import Call, ObjectWriter
from controlplane.store.protocol import Event, EventType, Revision, Store, Watch
from mesh.api.errors import SchemaError
from mesh.api.resources import CUSTOM_RESOURCE_DEFINITIONS, Json
from mesh.clock import Clock

logger = logging.getLogger(__name__)

CLEANER = Identity(user="system:apiserver", groups=(MASTERS,))
RETRY_S = 2.0
"""Between looks at instances that wait for finalizers of their own."""


class CustomKinds:
    """Keeps the registry as the stored definitions say, also those other servers write."""

    def __init__(self, store: Store, kinds: KindRegistry, rules: Rules) -> None:
        self._store = store
        self._kinds = kinds
        self._rules = rules
        self._watch: Watch | None = None
        self.leaving: set[str] = set()
        """Definitions that are being deleted."""
        self.changed = asyncio.Event()
        """Set when `leaving` has grown."""
        self.failure: Exception | None = None

    async def start(self) -> None:
        """Load and follow the definitions."""
        prefix = collection_prefix(CUSTOM_RESOURCE_DEFINITIONS)
        loaded = await self._store.range(prefix, prefix_end(prefix))
        for kv in loaded.kvs:
            self.apply(orjson.loads(kv.value))
        self._watch = self._store.watch(
            prefix,
            prefix_end(prefix),
            from_revision=loaded.revision + 1,
            on_events=self._on_events,
            on_lost=self._on_lost,
        )

    def stop(self) -> None:
        """Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def apply(self, crd: Json) -> None:
        """Serve what a stored definition says."""
        name = crd["metadata"]["name"]
        try:
            self._serve(name, kinds_of(crd))
        except (SchemaError, KeyError) as exc:
            logger.error("definition cannot be served", extra={"crd": name, "error": str(exc)})
        if crd["metadata"].get("deletionTimestamp"):
            self.leaving.add(name)
            self.changed.set()

    def _serve(self, name: str, kinds: Sequence[Kind]) -> None:
        before = self._kinds.custom(name)
        if before == tuple(kinds):
            return
        self._rules.set_custom(before, kinds)
        self._kinds.set_custom(name, kinds)

    def _on_lost(self, error: Exception) -> None:
        self.failure = error

    def _on_events(self, _revision: Revision, events: Sequence[Event]) -> None:
        for event in events:
            if event.type is EventType.PUT:
                self.apply(orjson.loads(event.kv.value))
            else:
                name = event.kv.key.decode().rpartition("/")[2]
                self._serve(name, ())
                self.leaving.discard(name)


class CustomKindAdmission:
    """The plugin: a definition must be whole and its names free; it is established at once."""

    def __init__(self, kinds: KindRegistry, rules: Rules, clock: Clock) -> None:
        self._kinds = kinds
        self._rules = rules
        self._clock = clock

    async def admit(self, request: AdmissionRequest) -> Json:
        crd = request.object
        if request.resource.key != CUSTOM_RESOURCE_DEFINITIONS.key or request.subresource:
            return crd
        if request.operation is Operation.DELETE:
            return crd
        causes = crd_causes(crd)
        if not causes:
            spec, names = crd["spec"], crd["spec"]["names"]
            taken = self._kinds.is_taken(spec["group"], names["plural"], names["kind"], by_other_than=request.name)
            if taken:
                causes = [errors.cause("spec.names", f"Invalid value: {taken} by this server")]
            for kind in kinds_of(crd):
                if problem := self._rules.schema_problem(kind):
                    at = f"spec.versions[{kind.resource.version}].schema.openAPIV3Schema"
                    causes.append(errors.cause(at, f"Invalid value: {problem}"))
        if request.old_object is not None:
            causes += _immutable_causes(crd, request.old_object)
        if causes:
            raise errors.invalid(request.resource, request.name, causes)
        crd["spec"]["names"].setdefault("singular", crd["spec"]["names"]["kind"].lower())
        crd["spec"]["names"].setdefault("listKind", f"{crd['spec']['names']['kind']}List")
        if request.operation is Operation.CREATE:
            crd["status"] = _established(crd, timestamp(self._clock.wall()))
        return crd


def _established(crd: Json, now: str) -> Json:
    def condition(type_: str, reason: str, message: str) -> Json:
        return {"type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}

    return {
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": [v["name"] for v in crd["spec"]["versions"] if v.get("storage")],
    }


def crd_causes(crd: Json) -> list[Json]:
    """What is wrong with a definition, beyond its schema. Pure."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [errors.cause("spec", "Required value", "FieldValueRequired")]
    causes = [
        errors.cause(f"spec.{field}", "Required value", "FieldValueRequired")
        for field in ("group", "scope", "names", "versions")
        if not spec.get(field)
    ]
    if causes:
        return causes
    names = spec["names"]
    causes += [
        errors.cause(f"spec.names.{field}", "Required value", "FieldValueRequired")
        for field in ("plural", "kind")
        if not names.get(field)
    ]
    if causes:
        return causes
    expected = f"{names['plural']}.{spec['group']}"
    if crd["metadata"].get("name") != expected:
        causes.append(
            errors.cause("metadata.name", f'Invalid value: must be spec.names.plural+"."+spec.group: {expected}')
        )
    if spec["scope"] not in ("Namespaced", "Cluster"):
        causes.append(
            errors.cause(
                "spec.scope", "Unsupported value: supported values: Namespaced, Cluster", "FieldValueNotSupported"
            )
        )
    if "." not in spec["group"]:
        causes.append(
            errors.cause("spec.group", f"Invalid value: {spec['group']!r}: should be a domain with at least one dot")
        )
    return causes + _version_causes(spec["versions"])


def _version_causes(versions: Sequence[Json]) -> list[Json]:
    causes = []
    stored = sum(bool(version.get("storage")) for version in versions)
    if stored != 1:
        causes.append(
            errors.cause(
                "spec.versions", f"Invalid value: must have exactly one version marked as storage version, has {stored}"
            )
        )
    names = [version.get("name") for version in versions]
    if len(set(names)) != len(names):
        causes.append(
            errors.cause("spec.versions", "Duplicate value: a version's name occurs twice", "FieldValueDuplicate")
        )
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        if not version.get("name"):
            causes.append(errors.cause(f"{at}.name", "Required value", "FieldValueRequired"))
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(
                errors.cause(
                    f"{at}.schema.openAPIV3Schema", "Required value: schemas are required", "FieldValueRequired"
                )
            )
        causes += _scale_causes(version, at)
    return causes


def _scale_causes(version: Json, at: str) -> list[Json]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return []
    causes = []
    for field, root in (("specReplicasPath", "spec"), ("statusReplicasPath", "status")):
        try:
            is_good = keys_of(str(scale.get(field, "")))[0] == root
        except ValueError:
            is_good = False
        if not is_good:
            message = f"Invalid value: must be a path like .{root}.replicas"
            causes.append(errors.cause(f"{at}.subresources.scale.{field}", message))
    return causes


def _immutable_causes(crd: Json, old: Json) -> list[Json]:
    causes = []
    for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
        new_value, old_value = crd.get("spec"), old["spec"]
        for step in path:
            new_value, old_value = (new_value or {}).get(step), old_value[step]
        if new_value != old_value:
            causes.append(errors.cause(f"spec.{'.'.join(path)}", "Invalid value: field is immutable"))
    return causes


async def clean_up(custom: CustomKinds, store: Store, kinds: KindRegistry, writer: ObjectWriter) -> None:
    """Delete the instances of definitions that are being deleted, then let them go. Runs until cancelled."""
    while True:
        await custom.changed.wait()
        custom.changed.clear()
        for name in sorted(custom.leaving):
            try:
                await _clean_up_one(name, store, kinds, writer)
            except ApiStatusError as exc:
                logger.warning("custom objects not deleted yet", extra={"crd": name, "error": exc.message})
        if custom.leaving:
            await _wait(custom.changed, RETRY_S)
            custom.changed.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def _clean_up_one(name: str, store: Store, kinds: KindRegistry, writer: ObjectWriter) -> None:
    plural, _, group = name.partition(".")
    served = [kind for kind in kinds if kind.is_custom and kind.resource.key == (group, plural)]
    if served and await _delete_instances(served[0], store, writer):
        return
    definitions = kinds.preferred(CUSTOM_RESOURCE_DEFINITIONS)
    await _swallow_not_found(
        writer.update(Call(kind=definitions, namespace="", name=name, identity=CLEANER), _without_finalizer)
    )


async def _delete_instances(kind: Kind, store: Store, writer: ObjectWriter) -> int:
    """Delete all; returns how many are still there afterwards."""
    prefix = collection_prefix(kind.resource)
    found = await store.range(prefix, prefix_end(prefix))
    for kv in found.kvs:
        metadata = parse(kind.resource, kv)["metadata"]
        call = Call(kind=kind, namespace=metadata.get("namespace", ""), name=metadata["name"], identity=CLEANER)
        await _swallow_not_found(writer.delete(call, DeleteOptions()))
    return (await store.range(prefix, prefix_end(prefix), limit=1, keys_only=True)).count


async def _swallow_not_found(work: Awaitable[object]) -> None:
    try:
        await work
    except ApiStatusError as exc:
        if exc.code != 404:
            raise


def _without_finalizer(crd: Json) -> Json:
    finalizers = crd["metadata"].get("finalizers") or ()
    crd["metadata"]["finalizers"] = [one for one in finalizers if one != CRD_FINALIZER]
    return crd
