"""One request: find out who asks for what, whether they may, and who answers."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from controlplane.apiserver import errors
from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.authorization import Attributes
from controlplane.apiserver.catalog import (
    AGGREGATED,
    REVIEWS,
    aggregated,
    api_group,
    api_group_list,
    api_resource_list,
    core_versions,
    group_versions,
)
from controlplane.apiserver.core import Core
from controlplane.apiserver.documents import legacy_document
from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.reading import get_object, list_objects, watch_objects
from controlplane.apiserver.request import ListOptions, Target, WriteOptions, parse_target, verb_of
from controlplane.apiserver.responses import json_response, status_response
from controlplane.apiserver.reviews import answer_review
from controlplane.apiserver.selection import parse_fields, selected_name
from controlplane.apiserver.subresources import (
    bind_pod,
    change_scale,
    create_token,
    get_scale,
    proxy,
    read_log,
    split_port,
)
from controlplane.apiserver.version import version_info
from controlplane.apiserver.writing import (
    create_object,
    delete_collection,
    delete_object,
    patch_object,
    read_object,
    replace_object,
)
from controlplane.store.errors import (
    CompactedError,
    FutureRevisionError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)

logger = logging.getLogger(__name__)

_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_REVIEW_PLACES = {(review.group, review.plural): review for review in REVIEWS}
LEGACY_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_LONG_LIVED = frozenset({"log", "proxy"})


class Handler:
    """aiohttp's request handler."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._in_flight = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiStatusError as exc:
            return status_response(exc)
        except StoreError as exc:
            return status_response(_store_refusal(exc))
        except ConnectionError:
            raise
        except Exception:
            logger.exception("request failed", extra={"method": request.method, "path": request.path})
            return status_response(errors.internal("see the API server's log"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if (plain := path.rstrip("/")) in _HEALTH or any(path.startswith(f"{one}/") for one in _HEALTH):
            return self._health(plain)
        if plain == "/version":
            return json_response(version_info())
        core = self._core
        identity = await core.authenticator.authenticate(request.transport, request.headers.get("Authorization", ""))
        target = parse_target(path)
        if target is None:
            return await self._document(request, path, identity)
        options = ListOptions.of(request.query) if request.method in ("GET", "DELETE") else ListOptions()
        is_watch = options.is_watch and not target.name
        self._authorize(identity, _attributes(request, target, options))
        if is_watch or target.subresource in _LONG_LIVED:
            return await self._resource(request, target, identity, options)
        if self._in_flight >= core.config.max_requests_in_flight:
            raise errors.too_many_requests("too many requests are being served, please try again later")
        self._in_flight += 1
        try:
            return await self._resource(request, target, identity, options)
        finally:
            self._in_flight -= 1

    def _health(self, path: str) -> web.Response:
        core = self._core
        failure = core.pods.failure or core.custom_kinds.failure
        if failure is not None:
            return web.Response(status=500, text=f"the store is lost: {failure}\n")
        if path == "/readyz" and (not core.is_ready or core.is_closing):
            return web.Response(status=503, text="not ready\n")
        return web.Response(text="ok")

    def _authorize(self, identity: Identity, attributes: Attributes) -> None:
        decision = self._core.authorizer.authorize(identity, attributes)
        if decision.is_allowed:
            return
        if attributes.path:
            raise errors.forbidden(identity.user, attributes.verb, f'path "{attributes.path}"', "", decision.reason)
        what = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
        if attributes.subresource:
            what += f"/{attributes.subresource}"
        where = f' in the namespace "{attributes.namespace}"' if attributes.namespace else " at the cluster scope"
        raise errors.forbidden(identity.user, attributes.verb, what, where, decision.reason)

    async def _document(self, request: web.BaseRequest, path: str, identity: Identity) -> web.StreamResponse:
        self._authorize(identity, Attributes(verb=request.method.lower(), path=path))
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed(request.method, path)
        core = self._core
        wants_aggregated = "as=APIGroupDiscoveryList" in request.headers.get("Accept", "")
        match path.strip("/").split("/"):
            case ["api" | "apis" as root] if wants_aggregated:
                return json_response(aggregated(core.kinds, core=root == "api"), content_type=AGGREGATED)
            case ["api"]:
                return json_response(core_versions())
            case ["apis"]:
                return json_response(api_group_list(core.kinds))
            case ["api", version]:
                found = api_resource_list(core.kinds, "", version)
            case ["apis", group]:
                versions = group_versions(core.kinds).get(group) if group else None
                found = api_group(group, versions) if versions else None
            case ["openapi", "v2"]:
                return web.Response(body=legacy_document(), headers={"Content-Type": LEGACY_TYPE})
            case ["openapi", "v3"]:
                return json_response(core.documents.index())
            case ["openapi", "v3", *place]:
                return self._openapi("/".join(place), path)
            case ["apis", group, version]:
                found = api_resource_list(core.kinds, group, version) if group else None
            case _:
                found = None
        if found is None:
            raise errors.no_such_path(path)
        return json_response(found)

    def _openapi(self, place: str, path: str) -> web.Response:
        data = self._core.documents.document(place)
        if data is None:
            raise errors.no_such_path(path)
        return json_response(data)

    async def _resource(
        self, request: web.BaseRequest, target: Target, identity: Identity, options: ListOptions
    ) -> web.StreamResponse:
        core = self._core
        if (target.group, target.plural) in _REVIEW_PLACES and target.version == "v1":
            return await self._review(request, target, identity)
        kind = core.kinds.find(target.group, target.version, target.plural)
        if kind is None or (target.namespace and not kind.resource.is_namespaced):
            raise errors.no_such_path(request.path)
        if target.subresource and target.subresource != "status":
            return await self._subresource(request, kind, target, identity)
        if target.subresource == "status" and not kind.has_status:
            raise errors.no_such_path(request.path)
        if not target.name:
            return await self._collection(request, kind, target, identity, options)
        if kind.resource.is_namespaced and not target.namespace:
            raise errors.no_such_path(request.path)
        if request.method in ("GET", "HEAD"):
            return await get_object(core, request, kind, target.namespace, target.name)
        change = _CHANGES.get(request.method)
        if change is None or (request.method == "DELETE" and target.subresource):
            raise errors.method_not_allowed(request.method, request.path)
        return await change(core, request, kind, target, identity)

    async def _collection(
        self, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity, options: ListOptions
    ) -> web.StreamResponse:
        core = self._core
        match request.method:
            case "GET" | "HEAD" if options.is_watch:
                return await watch_objects(core, request, kind, target.namespace, options)
            case "GET" | "HEAD":
                return await list_objects(core, request, kind, target.namespace, options)
            case "POST":
                return await create_object(core, request, kind, target, identity)
            case "DELETE":
                return await delete_collection(core, request, kind, target, identity)
            case method:
                raise errors.method_not_allowed(method, request.path)

    async def _review(self, request: web.BaseRequest, target: Target, identity: Identity) -> web.Response:
        if request.method != "POST" or target.name:
            raise errors.method_not_allowed(request.method, request.path)
        obj = await read_object(self._core, request, WriteOptions.of(request.query))
        review = _REVIEW_PLACES[(target.group, target.plural)]
        obj["apiVersion"], obj["kind"] = f"{review.group}/v1", review.kind
        return json_response(await answer_review(self._core, target.plural, obj, identity), status=201)

    async def _subresource(
        self, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
    ) -> web.StreamResponse:
        core, method = self._core, request.method
        if target.subresource not in kind.resource.subresources:
            raise errors.no_such_path(request.path)
        match target.subresource, method:
            case "proxy", _:
                return await proxy(core, request, kind, target)
            case "log", "GET":
                return await read_log(core, request, target)
            case "binding", "POST":
                return await bind_pod(core, request, kind, target, identity)
            case "token", "POST":
                return await create_token(core, request, target, identity)
            case "scale", "GET":
                return await get_scale(core, kind, target)
            case "scale", ("PUT" | "PATCH"):
                return await change_scale(core, request, kind, target, identity)
            case "finalize", "PUT":
                return await replace_object(core, request, kind, target, identity)
            case _:
                raise errors.method_not_allowed(method, request.path)


_Change = Callable[[Core, web.BaseRequest, Kind, Target, Identity], Awaitable[web.Response]]
_CHANGES: dict[str, _Change] = {"PUT": replace_object, "PATCH": patch_object, "DELETE": delete_object}


def _attributes(request: web.BaseRequest, target: Target, options: ListOptions) -> Attributes:
    name = split_port(target.name)[1] if target.subresource == "proxy" else target.name
    namespace = target.namespace
    if target.plural == "namespaces" and not target.group:
        namespace = target.name
    return Attributes(
        verb=verb_of(request.method, target, is_watch=options.is_watch) or request.method.lower()
        if not (target.name and target.subresource and request.method == "POST")
        else "create",
        group=target.group,
        resource=target.plural,
        subresource=target.subresource,
        namespace=namespace,
        name=name or _selected_name(options.field_selector),
    )


def _selected_name(field_selector: str) -> str:
    """A list or watch of one object by its name counts as access to that object. Source: Kubernetes authorization docs."""
    return selected_name(parse_fields(field_selector)) if "metadata.name" in field_selector else ""


def _store_refusal(error: StoreError) -> ApiStatusError:
    match error:
        case CompactedError():
            return errors.expired(
                "The provided continue parameter or resourceVersion is too old to display a consistent list result: "
                f"start the list again ({error})"
            )
        case FutureRevisionError():
            return errors.ApiStatusError(504, "Timeout", f"Too large resource version: {error}", retry_after_s=1)
        case StoreClosedError():
            return errors.unavailable("the store is not available")
        case StoreFullError():
            return errors.internal(f"{error}; free disk space")
        case _:
            logger.error("the store refused", extra={"error": str(error)})
            return errors.internal("the store refused; see the API server's log")
