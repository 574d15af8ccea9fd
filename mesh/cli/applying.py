"""Applying manifests: read everything, check everything, only then write; and waiting until it has effect.

A manifest is sent as a three-way merge: fields the last apply set and this one does not are removed, fields others set stay.
The last applied form is kept in kubectl's own annotation, so both tools can be mixed.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mesh.api.codec import Document, decode_manifest
from mesh.api.resources import (
    DEPLOYMENTS,
    HTTP_ROUTES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    TRAFFIC_LIMITS,
    Json,
    Resource,
)
from mesh.cli.errors import CommandError
from mesh.cli.manifest_checks import check_documents
from mesh.client.errors import AlreadyExistsError, NotFoundError, UnavailableError
from mesh.client.rest import ApiClient
from mesh.net.tasks import spawn

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
SOURCE = "meshwork.dev/source"
MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")
_POLICY_GROUP = "networking.istio.io"
_WATCH_AGAIN_S = 0.2
"""Pause before a watch that ended (the server restarted, or its time was up) is opened again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of one manifest."""

    resource: Resource
    name: str
    namespace: str | None
    outcome: str
    """created, configured or unchanged."""
    generation: int
    where: str
    """file:line of the manifest."""

    @property
    def title(self) -> str:
        """As kubectl names it: deployment.apps/web."""
        group = f".{self.resource.group}" if self.resource.group else ""
        return f"{self.resource.singular or self.resource.kind.lower()}{group}/{self.name}"


def manifest_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and the manifests directly inside folders, by name. Raises CommandError for a missing one."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in MANIFEST_SUFFIXES)
            if not inside:
                raise CommandError(f"{path}: no {', '.join(MANIFEST_SUFFIXES)} file in this folder")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise CommandError(f"{path}: no such file or folder")
    return files


def read_documents(paths: Iterable[Path], stdin: bytes | None = None) -> tuple[Document, ...]:
    """Every document of every file in order. Raises CommandError, CodecError with file and line."""
    documents: list[Document] = []
    for path in paths:
        documents += decode_manifest(path.read_bytes(), str(path))
    if stdin is not None:
        documents += decode_manifest(stdin, "<stdin>")
    if not documents:
        raise CommandError("the manifests hold no object")
    return tuple(documents)


async def apply_files(
    client: ApiClient, paths: Sequence[Path], *, namespace: str = "default", stdin: bytes | None = None
) -> list[Applied]:
    """Check every manifest, then apply all in order. Raises CommandError naming every problem; then nothing was applied."""
    documents = read_documents(manifest_files(paths), stdin)
    resources = await check_documents(client, documents)
    applied = []
    for document, resource in zip(documents, resources, strict=True):
        applied.append(await _apply(client, resource, document, namespace))
    return applied


async def _apply(client: ApiClient, resource: Resource, document: Document, default_namespace: str) -> Applied:
    obj = _prepared(document, resource, default_namespace)
    meta = obj["metadata"]
    name, namespace = str(meta["name"]), meta.get("namespace")
    where = f"{document.source}:{document.line}"
    for _ in range(3):
        try:
            current = await client.get(resource, name, namespace)
        except NotFoundError:
            try:
                created = await client.create(resource, obj, namespace)
            except AlreadyExistsError:
                continue  # somebody was faster: take their object as the current one
            return _outcome(resource, created, "created", where)
        patch = three_way_patch(_last_applied(current), obj, current)
        if not patch:
            return _outcome(resource, current, "unchanged", where)
        return _outcome(resource, await client.patch(resource, name, patch, namespace), "configured", where)
    raise CommandError(
        f"{where}: {resource.kind} {name} is created and deleted by somebody else at the same time: try again"
    )


def _outcome(resource: Resource, obj: Json, outcome: str, where: str) -> Applied:
    meta = obj["metadata"]
    return Applied(
        resource=resource,
        name=meta["name"],
        namespace=meta.get("namespace"),
        outcome=outcome,
        generation=int(meta.get("generation", 0)),
        where=where,
    )


def _prepared(document: Document, resource: Resource, default_namespace: str) -> Json:
    obj: Json = orjson.loads(orjson.dumps(document.obj))
    meta = obj.setdefault("metadata", {})
    if resource.is_namespaced:
        meta.setdefault("namespace", default_namespace)
    if resource.group in (_POLICY_GROUP, HTTP_ROUTES.group, TRAFFIC_LIMITS.group):
        meta.setdefault("annotations", {})[SOURCE] = f"{Path(document.source).name}:{document.line}"
    last = orjson.dumps(obj, option=orjson.OPT_SORT_KEYS).decode()
    meta.setdefault("annotations", {})[LAST_APPLIED] = last
    return obj


def _last_applied(current: Json) -> Json:
    text = (current["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}  # damaged by somebody: nothing is known to be ours, so nothing is removed
    return value if isinstance(value, dict) else {}


def three_way_patch(last: Json, wanted: Json, current: Json) -> Json:
    """The merge patch (RFC 7386) from `current` to `wanted` that removes what `last` had and `wanted` has not.

    Lists are replaced as a whole when they differ in what `wanted` says; fields the server defaulted inside equal items stay.
    """
    patch: Json = {}
    for key, value in wanted.items():
        present = current.get(key)
        if isinstance(value, dict):
            before = last.get(key)
            inner = three_way_patch(
                before if isinstance(before, dict) else {}, value, present if isinstance(present, dict) else {}
            )
            if inner or not isinstance(present, dict):
                patch[key] = inner
        elif not _says_the_same(value, present):
            patch[key] = value
    for key in last:
        if key not in wanted and key in current:
            patch[key] = None
    return patch


def _says_the_same(wanted: Any, present: Any) -> bool:
    """Whether everything `wanted` says is already so in `present`."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(_says_the_same(v, present.get(k)) for k, v in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(present, list) or len(wanted) != len(present):
            return False
        return all(_says_the_same(w, p) for w, p in zip(wanted, present, strict=True))
    return bool(wanted == present)


# --- Waiting --------------------------------------------------------------------------------------------------------------


async def wait_applied(
    client: ApiClient, applied: Sequence[Applied], *, timeout_s: float, on_progress: Callable[[str], None]
) -> None:
    """Until workloads are rolled out and ready, and every proxy concerned has acknowledged the policies.

    Raises CommandError when a policy is refused, or when time is up, with what is still missing.
    """
    waiting = [item for item in applied if item.resource.key in _WAITED]
    states = dict.fromkeys(waiting, "nothing known yet")
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            for item in waiting:
                spawn(group, _wait_one(client, item, states, on_progress), name=f"wait for {item.title}")
    except TimeoutError as exc:
        missing = "; ".join(f"{item.title}: {states[item]}" for item in waiting if states[item])
        raise CommandError(f"not done after {timeout_s:.0f} s: {missing}", exit_code=3) from exc
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


async def _wait_one(
    client: ApiClient, item: Applied, states: dict[Applied, str], on_progress: Callable[[str], None]
) -> None:
    started = time.monotonic()
    missing = _WAITED[item.resource.key]
    while True:
        try:
            async for event in client.watch(item.resource, item.namespace, field_selector=f"metadata.name={item.name}"):
                if not event.object.get("metadata", {}).get("name"):
                    continue  # a bookmark
                state = missing(event.object, item)
                if state != states[item]:
                    states[item] = state
                    on_progress(f"{item.title}: {state or 'done'} ({time.monotonic() - started:.1f} s)")
                if not state:
                    return
        except UnavailableError as exc:
            states[item] = f"the API server is away ({exc.reason})"
        await asyncio.sleep(_WATCH_AGAIN_S)


def _deployment_missing(obj: Json, _item: Applied) -> str:
    want, status = obj["spec"].get("replicas", 1), obj.get("status") or {}
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return "waiting for the controller"
    updated, available, total = (status.get(k) or 0 for k in ("updatedReplicas", "availableReplicas", "replicas"))
    if updated < want or available < want or total > updated:
        return f"{available} of {want} replicas are available"
    return ""


def _replicas_missing(obj: Json, _item: Applied) -> str:
    want, ready = obj["spec"].get("replicas", 1), (obj.get("status") or {}).get("readyReplicas") or 0
    return "" if ready >= want else f"{ready} of {want} replicas are ready"


def _pod_missing(obj: Json, _item: Applied) -> str:
    status = obj.get("status") or {}
    if status.get("phase") == "Succeeded" or _condition(status, "Ready").get("status") == "True":
        return ""
    return f"phase {status.get('phase', 'unknown')}, not ready"


def _policy_missing(obj: Json, item: Applied) -> str:
    status = obj.get("status") or {}
    accepted, programmed = _condition(status, "Accepted"), _condition(status, "Programmed")
    if accepted.get("observedGeneration", 0) >= item.generation and accepted.get("status") == "False":
        raise CommandError(f"{item.title} ({item.where}) is not in force: {accepted.get('message')}")
    if programmed.get("observedGeneration", 0) >= item.generation and programmed.get("status") == "True":
        return ""
    return str(programmed.get("message") or "waiting for the proxies' acknowledgement")


def _route_missing(obj: Json, item: Applied) -> str:
    """As a policy, for each Service the route is for; a route for gateways only has nothing to wait for."""
    services = [ref for ref in obj["spec"].get("parentRefs") or () if ref.get("kind") == "Service"]
    parents = (obj.get("status") or {}).get("parents") or ()
    if len(parents) < len(services):
        return "waiting for discovery"
    missing = (_policy_missing({"status": parent}, item) for parent in parents)
    return next((state for state in missing if state), "")


def _namespace_missing(obj: Json, _item: Applied) -> str:
    return "" if (obj.get("status") or {}).get("phase") == "Active" else "not active yet"


def _condition(status: Json, type_: str) -> Json:
    found: Json = next((c for c in status.get("conditions") or [] if c.get("type") == type_), {})
    return found


_WAITED: dict[tuple[str, str], Callable[[Json, Applied], str]] = {
    NAMESPACES.key: _namespace_missing,
    DEPLOYMENTS.key: _deployment_missing,
    REPLICA_SETS.key: _replicas_missing,
    REPLICATION_CONTROLLERS.key: _replicas_missing,
    PODS.key: _pod_missing,
    (_POLICY_GROUP, "virtualservices"): _policy_missing,
    (_POLICY_GROUP, "destinationrules"): _policy_missing,
    HTTP_ROUTES.key: _route_missing,
    TRAFFIC_LIMITS.key: _policy_missing,
}
"""What is still missing for each kind that is waited for; "" when nothing is."""
