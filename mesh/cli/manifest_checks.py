"""What `mesh apply` and `mesh inject` check before anything is sent: kinds, schemas, values and policies of all manifests at once."""

from collections.abc import Sequence

import orjson

from mesh.api.codec import Document
from mesh.api.defaults import apply_defaults
from mesh.api.resources import Json, Resource, ResourceIndex
from mesh.api.schema import SchemaRegistry
from mesh.api.validation import validate_object
from mesh.cli.errors import CommandError
from mesh.client.errors import NotFoundError
from mesh.client.rest import ApiClient
from policies.validation import validate_policy

_MAX_SHOWN = 20


async def check_documents(client: ApiClient, documents: Sequence[Document]) -> list[Resource]:
    """The resource of each document. Raises CommandError that names every problem found; the caller has sent nothing yet."""
    index = await _index(client, documents)
    problems: list[str] = []
    resources: list[Resource] = []
    schemas = SchemaRegistry()
    for document in documents:
        resource = index.for_object(document.obj)
        if resource is None:
            known = ", ".join(sorted({r.kind for r in index.by_kind.values()}))
            problems.append(
                f"{document.source}:{document.line}: unknown kind {document.obj.get('kind')!r} of apiVersion "
                f"{document.obj.get('apiVersion')!r}: want one of {known}"
            )
            continue
        resources.append(resource)
        problems += _problems(schemas, resource, document)
    if problems:
        more = f"\n... and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise CommandError("nothing was applied:\n" + "\n".join(problems[:_MAX_SHOWN]) + more)
    return resources


def _problems(schemas: SchemaRegistry, resource: Resource, document: Document) -> list[str]:
    if schemas.raw_schema(resource) is None:
        return []  # a custom kind: the server has its schema
    found = schemas.validate(resource, document.obj)
    if not found:
        found = validate_object(resource, apply_defaults(resource, document.obj)) or validate_policy(document.obj)
    title = f"{resource.kind} {document.obj.get('metadata', {}).get('name', '')}"
    return [
        f"{document.source}:{document.line_of(error.path)}: {title}: {error.path}: {error.message}" for error in found
    ]


async def _index(client: ApiClient, documents: Sequence[Document]) -> ResourceIndex:
    """Built-in kinds; the server's discovery is asked only when a document needs it."""
    index = ResourceIndex.of()
    unknown = {group for d in documents if index.for_object(d.obj) is None and (group := _group(d.obj))}
    if not unknown:
        return index
    found = dict(index.by_kind)
    for group in sorted(unknown):
        for resource in await discover(client, group):
            found[(resource.group, resource.kind)] = resource
    return ResourceIndex(found)


def _group(obj: Json) -> str:
    return str(obj.get("apiVersion", "")).rpartition("/")[0]


async def discover(client: ApiClient, group: str) -> list[Resource]:
    """The kinds of an API group that the server serves; empty when it does not know the group."""
    try:
        versions = orjson.loads(await client.raw("GET", f"/apis/{group}"))["versions"]
        resources = []
        for version in versions:
            listed = orjson.loads(await client.raw("GET", f"/apis/{group}/{version['version']}"))
            resources += [_resource(group, version["version"], r) for r in listed["resources"] if "/" not in r["name"]]
    except NotFoundError:
        return []
    return resources


def _resource(group: str, version: str, listed: Json) -> Resource:
    return Resource(
        group=group,
        version=version,
        plural=listed["name"],
        kind=listed["kind"],
        is_namespaced=bool(listed["namespaced"]),
        singular=listed.get("singularName", ""),
        short_names=tuple(listed.get("shortNames") or ()),
    )
