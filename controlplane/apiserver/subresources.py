"""binding, scale, token, finalize, log and proxy."""

from urllib.parse import quote, urlencode

from aiohttp import web

from controlplane.apiserver import errors
from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.backends import Upstream, node_address, node_port
from controlplane.apiserver.core import Core
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.objects import collection_prefix, parse, prefix_end
from controlplane.apiserver.request import Target, WriteOptions
from controlplane.apiserver.responses import json_response, success
from controlplane.apiserver.reviews import issue_token
from controlplane.apiserver.scale import scale_of, with_scale
from controlplane.apiserver.strategy import timestamp
from controlplane.apiserver.writer import Call
from controlplane.apiserver.writing import Patch, read_object, read_patch
from mesh.api.errors import PatchError
from mesh.api.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Json

_LOG_QUERY = ("follow", "previous", "tailLines", "timestamps", "sinceSeconds", "sinceTime", "limitBytes")


def _call(kind: Kind, target: Target, identity: Identity, request: web.BaseRequest) -> Call:
    return Call(
        kind=kind,
        namespace=target.namespace,
        name=target.name,
        identity=identity,
        subresource=target.subresource,
        options=WriteOptions.of(request.query),
    )


async def bind_pod(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """POST pods/NAME/binding: give a pod to a node, once."""
    call = _call(kind, target, identity, request)
    binding = await read_object(core, request, call.options)
    wanted = binding.get("target") or {}
    node = wanted.get("name")
    if not node or wanted.get("kind", "Node") != "Node":
        missing = errors.cause("target.name", "Required value: the node's name", "FieldValueRequired")
        raise errors.invalid(PODS, target.name, [missing])
    metadata = binding.get("metadata") or {}
    now = timestamp(core.clock.wall())

    def bind(pod: Json) -> Json:
        return _bound(pod, str(node), metadata, now)

    await core.writer.update(call, bind)
    return json_response(success(), status=201)


def _bound(pod: Json, node: str, binding_metadata: Json, now: str) -> Json:
    metadata, spec, status = pod["metadata"], pod.setdefault("spec", {}), pod.setdefault("status", {})
    if binding_metadata.get("uid") not in (None, "", metadata["uid"]):
        raise errors.conflict(PODS, metadata["name"], "the binding is for an earlier pod of this name")
    if spec.get("nodeName"):
        raise errors.conflict(
            PODS, metadata["name"], f"pod {metadata['name']} is already assigned to node {spec['nodeName']}"
        )
    if metadata.get("deletionTimestamp"):
        raise errors.conflict(
            PODS, metadata["name"], f"pod {metadata['name']} is being deleted, cannot be assigned to a host"
        )
    spec["nodeName"] = node
    if binding_metadata.get("annotations"):
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **binding_metadata["annotations"]}
    others = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    status["conditions"] = [*others, {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}]
    return pod


async def get_scale(core: Core, kind: Kind, target: Target) -> web.Response:
    """GET scale."""
    kv = await core.storage.read(kind, target.namespace, target.name)
    if kv is None:
        raise errors.not_found(kind.resource, target.name)
    return json_response(scale_of(kind, parse(kind.resource, kv)))


async def change_scale(
    core: Core, request: web.BaseRequest, kind: Kind, target: Target, identity: Identity
) -> web.Response:
    """PUT or PATCH scale."""
    call = _call(kind, target, identity, request)
    if request.method == "PUT":
        sent = await read_object(core, request, call.options)

        patch: Patch = lambda _scale: sent  # noqa: E731
    else:
        patch = _scale_patch(await read_patch(core, request, kind))

    def change(obj: Json) -> Json:
        return with_scale(kind, obj, patch(scale_of(kind, obj)))

    return json_response(scale_of(kind, await core.writer.update(call, change)))


def _scale_patch(patch: Patch) -> Patch:
    def apply(scale: Json) -> Json:
        try:
            patched = patch(scale)
        except PatchError as exc:
            raise errors.bad_request(f"the patch cannot be applied: {exc}") from exc
        if not isinstance(patched, dict):
            raise errors.bad_request("the patch leaves something that is not a Scale")
        return patched

    return apply


async def create_token(core: Core, request: web.BaseRequest, target: Target, identity: Identity) -> web.Response:
    """POST serviceaccounts/NAME/token."""
    obj = await read_object(core, request, WriteOptions.of(request.query))
    return json_response(await issue_token(core, target.namespace, target.name, obj, identity), status=201)


async def read_log(core: Core, request: web.BaseRequest, target: Target) -> web.StreamResponse:
    """GET pods/NAME/log, from the pod's node as it comes."""
    pod = await core.storage.lookup(PODS, target.namespace, target.name)
    if pod is None:
        raise errors.not_found(PODS, target.name)
    container = _container(pod, request.query.get("container", ""))
    query = urlencode([(name, request.query[name]) for name in _LOG_QUERY if name in request.query])
    path = f"/containerLogs/{quote(target.namespace)}/{quote(target.name)}/{quote(container)}"
    upstream = await _on_node(core, pod, path, query)
    return await core.backends.forward(request, upstream, limit_bytes=0)


def _container(pod: Json, asked: str) -> str:
    spec = pod.get("spec") or {}
    names = [c["name"] for c in spec.get("containers") or ()]
    init_names = [c["name"] for c in spec.get("initContainers") or ()]
    name = pod["metadata"]["name"]
    if not asked:
        default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if default in names:
            return str(default)
        if len(names) == 1:
            return str(names[0])
        raise errors.bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join([*names, *init_names])}]"
        )
    if asked not in (*names, *init_names):
        raise errors.bad_request(
            f"container {asked} is not valid for pod {name}; it has {', '.join([*names, *init_names])}"
        )
    return asked


async def _on_node(core: Core, pod: Json, path: str, query: str) -> Upstream:
    node_name = (pod.get("spec") or {}).get("nodeName")
    if not node_name:
        raise errors.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    node = await core.storage.lookup(NODES, "", node_name)
    address = node_address(node) if node is not None else None
    if node is None or address is None:
        raise errors.unavailable(f"node {node_name} of pod {pod['metadata']['name']} has no address")
    return Upstream(
        scheme="https", address=address, port=node_port(node, core.config.kubelet_port), path=path, query=query
    )


def split_port(name: str) -> tuple[str, str, str]:
    """`NAME`, `NAME:PORT` or `SCHEME:NAME:PORT` -> (scheme, name, port)."""
    parts = name.split(":")
    match parts:
        case [only]:
            return "", only, ""
        case [short, port]:
            return "", short, port
        case [scheme, short, port] if scheme in ("http", "https", ""):
            return scheme, short, port
        case _:
            raise errors.bad_request(f"{name!r} is not NAME, NAME:PORT or SCHEME:NAME:PORT")


async def proxy(core: Core, request: web.BaseRequest, kind: Kind, target: Target) -> web.StreamResponse:
    """Any method on pods/NAME:PORT/proxy/PATH and services/NAME:PORT/proxy/PATH."""
    if kind.resource.key == PODS.key:
        upstream = await _pod_upstream(core, request, target)
    else:
        upstream = await _service_upstream(core, request, target)
    return await core.backends.forward(request, upstream, limit_bytes=core.config.max_body_bytes)


def _raw_rest(request: web.BaseRequest) -> str:
    """The raw path below .../proxy, with its slash."""
    return "/" + request.rel_url.raw_path.partition("/proxy")[2].lstrip("/")


async def _pod_upstream(core: Core, request: web.BaseRequest, target: Target) -> Upstream:
    _scheme, name, port = split_port(target.name)
    pod = await core.storage.lookup(PODS, target.namespace, name)
    if pod is None:
        raise errors.not_found(PODS, name)
    number = int(port) if port.isdigit() else _container_port(pod, port)
    path = f"/proxy/{quote(target.namespace)}/{quote(name)}/{number}{_raw_rest(request)}"
    return await _on_node(core, pod, path, request.rel_url.raw_query_string)


def _container_port(pod: Json, port_name: str) -> int:
    containers = (pod.get("spec") or {}).get("containers") or ()
    ports = [port for container in containers for port in container.get("ports") or ()]
    for port in ports:
        if not port_name or port.get("name") == port_name:
            return int(port["containerPort"])
    raise errors.bad_request(f"pod {pod['metadata']['name']} has no port {port_name!r}; write NAME:PORT")


async def _service_upstream(core: Core, request: web.BaseRequest, target: Target) -> Upstream:
    scheme, name, wanted = split_port(target.name)
    service = await core.storage.lookup(SERVICES, target.namespace, name)
    if service is None:
        raise errors.not_found(SERVICES, name)
    port = _service_port(service, wanted)
    is_https = scheme == "https" or (not scheme and _speaks_https(port))
    address, number = await _ready_endpoint(core, service, port)
    return Upstream(
        scheme="https" if is_https else "http",
        address=address,
        port=number,
        path=_raw_rest(request),
        query=request.rel_url.raw_query_string,
        server_name=f"{name}.{target.namespace}.svc" if is_https else "",
    )


def _service_port(service: Json, wanted: str) -> Json:
    ports: list[Json] = (service.get("spec") or {}).get("ports") or []
    for port in ports:
        if wanted in (str(port.get("port")), port.get("name", "")) or (not wanted and len(ports) == 1):
            return port
    name = service["metadata"]["name"]
    raise errors.bad_request(
        f"service {name} has no port {wanted!r}; it has {[p.get('name') or p.get('port') for p in ports]}"
    )


def _speaks_https(port: Json) -> bool:
    return str(port.get("name", "")).startswith("https") or port.get("appProtocol") in ("https", "kubernetes.io/https")


async def _ready_endpoint(core: Core, service: Json, port: Json) -> tuple[str, int]:
    """A ready endpoint of a service port, by chance."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    prefix = collection_prefix(ENDPOINT_SLICES, namespace)
    slices = core.kinds.preferred(ENDPOINT_SLICES)
    found: list[tuple[str, int]] = []
    for kv in (await core.store.range(prefix, prefix_end(prefix))).kvs:
        one = parse(slices.resource, kv)
        if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
            continue
        numbers = [p["port"] for p in one.get("ports") or () if (p.get("name") or "") == (port.get("name") or "")]
        for endpoint in one.get("endpoints") or ():
            if numbers and (endpoint.get("conditions") or {}).get("ready") is not False:
                found += [(address, numbers[0]) for address in endpoint["addresses"]]
    if not found:
        raise errors.unavailable(f'no endpoints available for service "{name}"')
    return core.rng.choice(found)
