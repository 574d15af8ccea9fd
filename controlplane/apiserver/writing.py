"""create, update, patch, delete and deletecollection."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from controlplane.apiserver import errors
from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.body import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    PROTOBUF,
    STRATEGIC_PATCH,
    media_type,
    parse_json,
    parse_object,
    read_bytes,
)
from controlplane.apiserver.core import Core
from controlplane.apiserver.deletion import DeleteOptions
from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.listing import read_page
from controlplane.apiserver.objects import copied, parse
from controlplane.apiserver.protobuf import decode_protobuf
from controlplane.apiserver.reading import shown
from controlplane.apiserver.request import FieldValidation, ListOptions, Target, WriteOptions
from controlplane.apiserver.responses import json_response, success
from controlplane.apiserver.selection import selection_of
from controlplane.apiserver.writer import Call, Deleted
from mesh.api.codec import decode_json
from mesh.api.errors import ManifestError, PatchError, PatchTestFailedError
from mesh.api.patch import json_patch, merge_patch
from mesh.api.resources import CUSTOM_RESOURCE_DEFINITIONS, Json

Patch = Callable[[Json], Any]


async def read_object(core: Core, request: web.BaseRequest, options: WriteOptions) -> Json:
    """The object in the body. Raises ApiStatusError (400, 413, 415)."""
    data = await read_bytes(request, core.config.max_body_bytes)
    type_ = media_type(request)
    if type_ == PROTOBUF:
        return decode_protobuf(data)
    obj = parse_object(data, type_)
    if options.field_validation is FieldValidation.STRICT and type_.endswith("json"):
        try:
            decode_json(data, "request body")
        except ManifestError as exc:
            raise errors.bad_request(f"strict decoding error: {exc}") from exc
    return obj


def check_type(kind: Kind, obj: Json) -> None:
    """The body must be of the kind the URL names; what it leaves out is filled in. Raises ApiStatusError (400)."""
    resource = kind.resource
    for field, want in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        got = obj.setdefault(field, want) or want
        if got != want:
            raise errors.bad_request(f"{field} in the data ({got}) does not match the one expected here ({want})")
        obj[field] = want
    metadata = obj.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_request(f"metadata is a {type(metadata).__name__}, not an object")
    for name in ("name", "namespace", "generateName", "uid", "resourceVersion"):
        if not isinstance(metadata.get(name, ""), str | None):
            raise errors.bad_request(f"metadata.{name}: {metadata[name]!r} is not a string")


def _call(kind: Kind, target: Target, identity: Identity, options: WriteOptions) -> Call:
    return Call(
        kind=kind,
        namespace=target.namespace,
        name=target.name,
        identity=identity,
        subresource=target.subresource,
        options=options,
    )


async def create_object(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """POST to a collection."""
    options = WriteOptions.of(request.query)
    obj = await read_object(core, request, options)
    check_type(kind, obj)
    namespace = obj["metadata"].get("namespace")
    if kind.resource.is_namespaced:
        if not target.namespace:
            raise errors.bad_request(
                f"{kind.resource.kind} objects are created in a namespace: POST to namespaces/NAME"
            )
        if namespace and namespace != target.namespace:
            raise errors.bad_request(
                f"the namespace of the object ({namespace}) does not match the namespace on the URL ({target.namespace})"
            )
    call = _call(kind, target, identity, options)
    created = await core.writer.create(call, lambda: copied(obj))
    _after_write(core, kind, created, options)
    return json_response(shown(core, kind, created, request), status=201, warnings=call.warnings)


def _after_write(core: Core, kind: Kind, obj: Json, options: WriteOptions) -> None:
    """A definition's kinds are served by the time its writer has its answer."""
    if kind.resource.key == CUSTOM_RESOURCE_DEFINITIONS.key and not options.dry_run:
        core.custom_kinds.apply(obj)


async def replace_object(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """PUT of an object or of its status."""
    options = WriteOptions.of(request.query)
    obj = await read_object(core, request, options)
    check_type(kind, obj)
    call = _call(kind, target, identity, options)
    written = await core.writer.update(call, lambda _old: copied(obj))
    _after_write(core, kind, written, options)
    return json_response(shown(core, kind, written, request), warnings=call.warnings)


async def patch_object(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """PATCH of an object or of its status."""
    options = WriteOptions.of(request.query)
    patch = await read_patch(core, request, kind)
    call = _call(kind, target, identity, options)
    written = await core.writer.update(call, lambda old: apply_patch(kind, target.name, patch, old))
    _after_write(core, kind, written, options)
    return json_response(shown(core, kind, written, request), warnings=call.warnings)


async def read_patch(core: Core, request: web.BaseRequest, kind: Kind) -> Patch:
    """The patch in the body, as a function. Raises ApiStatusError (400, 413, 415)."""
    type_ = media_type(request)
    known = [JSON_PATCH, MERGE_PATCH]
    if core.rules.has_strategic_patch(kind):
        known.append(STRATEGIC_PATCH)
    if type_ == APPLY_PATCH or type_ not in known:
        raise errors.unsupported_media_type(type_, known)
    body = parse_json(await read_bytes(request, core.config.max_body_bytes))
    if type_ == JSON_PATCH:
        return lambda obj: json_patch(obj, body)
    if not isinstance(body, dict):
        raise errors.bad_request(f"a merge patch is a JSON object, not a {type(body).__name__}")
    if type_ == MERGE_PATCH:
        return lambda obj: merge_patch(obj, body)
    return lambda obj: core.rules.strategic_patch(kind, obj, body)


def apply_patch(kind: Kind, name: str, patch: Patch, old: Json) -> Json:
    """The object a patch makes of `old`. Raises ApiStatusError (400, 422)."""
    try:
        patched = patch(old)
    except PatchTestFailedError as exc:
        raise errors.invalid(kind.resource, name, [errors.cause("patch", str(exc))]) from exc
    except PatchError as exc:
        raise errors.bad_request(f"the patch cannot be applied: {exc}") from exc
    if not isinstance(patched, dict):
        raise errors.bad_request("the patch leaves something that is not an object")
    check_type(kind, patched)
    return patched


async def _delete_options(core: Core, request: web.BaseRequest) -> DeleteOptions:
    data = await read_bytes(request, core.config.max_body_bytes)
    if data.strip() and media_type(request) == PROTOBUF:
        body: Any = decode_protobuf(data)
    else:
        body = parse_json(data) if data.strip() else {}
    if not isinstance(body, dict):
        raise errors.bad_request(f"DeleteOptions is a JSON object, not a {type(body).__name__}")
    return DeleteOptions.of(body, request.query)


async def delete_object(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """DELETE of one object: a Status when it is gone, the object when it is only marked."""
    options = await _delete_options(core, request)
    deleted = await core.writer.delete(_call(kind, target, identity, WriteOptions()), options)
    return json_response(_outcome(kind, deleted))


def _outcome(kind: Kind, deleted: Deleted) -> Json:
    if not deleted.is_gone:
        return deleted.obj
    metadata = deleted.obj["metadata"]
    details: Json = {"name": metadata["name"], "kind": kind.resource.plural, "uid": metadata["uid"]}
    if kind.resource.group:
        details["group"] = kind.resource.group
    return success(details)


async def delete_collection(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """DELETE of a collection: every object the selectors match, one by one."""
    list_options = ListOptions.of(request.query)
    options = await _delete_options(core, request)
    page = await read_page(core.store, kind, target.namespace, selection_of(kind, list_options), list_options)
    for kv in page.kvs:
        metadata = parse(kind.resource, kv)["metadata"]
        call = Call(kind=kind, namespace=metadata.get("namespace", ""), name=metadata["name"], identity=identity)
        try:
            await core.writer.delete(call, options)
        except ApiStatusError as exc:
            if exc.code != 404:
                raise
    return json_response(success({"kind": kind.resource.plural}))
