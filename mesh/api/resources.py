"""The names of the resources Meshwork serves: group, version, plural, kind and scope."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
"""One API object or fragment as JSON data. Objects from caches and snapshots are read-only by agreement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind as the REST API serves it. Source: Kubernetes API conventions, "Resources"."""

    group: str
    """API group; "" for the core group."""
    version: str
    plural: str
    """Lower-case plural, the path segment."""
    kind: str
    is_namespaced: bool
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """Of "status", "scale", "binding", "log", "token", "proxy"."""

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`, as in an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        """(group, plural): unique in one server, whatever the version."""
        return self.group, self.plural

    def collection_path(self, namespace: str | None = None) -> str:
        """The URL path of the collection; of all namespaces when `namespace` is None or the kind is cluster-scoped."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace and self.is_namespaced:
            return f"{root}/namespaces/{namespace}/{self.plural}"
        return f"{root}/{self.plural}"

    def object_path(self, name: str, namespace: str | None = None) -> str:
        """The URL path of one object."""
        return f"{self.collection_path(namespace)}/{name}"


def _core(plural: str, kind: str, *, namespaced: bool = True, **more: Any) -> Resource:
    return Resource(
        group="", version="v1", plural=plural, kind=kind, is_namespaced=namespaced, singular=kind.lower(), **more
    )


def _apps(plural: str, kind: str, **more: Any) -> Resource:
    return Resource(
        group="apps",
        version="v1",
        plural=plural,
        kind=kind,
        is_namespaced=True,
        singular=kind.lower(),
        categories=("all",),
        subresources=("status", "scale"),
        **more,
    )


_ALL = ("all",)
NAMESPACES = _core(
    "namespaces", "Namespace", namespaced=False, short_names=("ns",), subresources=("status", "finalize")
)
NODES = _core("nodes", "Node", namespaced=False, short_names=("no",), subresources=("status",))
PODS = _core("pods", "Pod", short_names=("po",), categories=_ALL, subresources=("status", "binding", "log", "proxy"))
SERVICES = _core("services", "Service", short_names=("svc",), categories=_ALL, subresources=("status", "proxy"))
ENDPOINTS = _core("endpoints", "Endpoints", short_names=("ep",))
REPLICATION_CONTROLLERS = _core(
    "replicationcontrollers",
    "ReplicationController",
    short_names=("rc",),
    categories=_ALL,
    subresources=("status", "scale"),
)
CONFIG_MAPS = _core("configmaps", "ConfigMap", short_names=("cm",))
SECRETS = _core("secrets", "Secret")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", short_names=("sa",), subresources=("token",))
EVENTS = _core("events", "Event", short_names=("ev",))
REPLICA_SETS = _apps("replicasets", "ReplicaSet", short_names=("rs",))
DEPLOYMENTS = _apps("deployments", "Deployment", short_names=("deploy",))
ENDPOINT_SLICES = Resource(
    group="discovery.k8s.io",
    version="v1",
    plural="endpointslices",
    kind="EndpointSlice",
    is_namespaced=True,
    singular="endpointslice",
)
LEASES = Resource(
    group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", is_namespaced=True, singular="lease"
)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    is_namespaced=False,
    singular="customresourcedefinition",
    short_names=("crd", "crds"),
    subresources=("status",),
)
HOST_IMAGES = Resource(
    group="node.meshwork.dev",
    version="v1alpha1",
    plural="hostimages",
    kind="HostImage",
    is_namespaced=False,
    singular="hostimage",
    short_names=("himg",),
)
VIRTUAL_SERVICES = Resource(
    group="networking.istio.io",
    version="v1",
    plural="virtualservices",
    kind="VirtualService",
    is_namespaced=True,
    singular="virtualservice",
    short_names=("vs",),
    subresources=("status",),
)
DESTINATION_RULES = Resource(
    group="networking.istio.io",
    version="v1",
    plural="destinationrules",
    kind="DestinationRule",
    is_namespaced=True,
    singular="destinationrule",
    short_names=("dr",),
    subresources=("status",),
)
HTTP_ROUTES = Resource(
    group="gateway.networking.k8s.io",
    version="v1",
    plural="httproutes",
    kind="HTTPRoute",
    is_namespaced=True,
    singular="httproute",
    categories=("gateway-api",),
    subresources=("status",),
)
TRAFFIC_LIMITS = Resource(
    group="meshwork.dev",
    version="v1",
    plural="trafficlimits",
    kind="TrafficLimit",
    is_namespaced=True,
    singular="trafficlimit",
    short_names=("tl",),
    subresources=("status",),
)

BUILTIN: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ENDPOINTS,
    REPLICATION_CONTROLLERS,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    EVENTS,
    REPLICA_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LEASES,
    CUSTOM_RESOURCE_DEFINITIONS,
    HOST_IMAGES,
    VIRTUAL_SERVICES,
    DESTINATION_RULES,
    HTTP_ROUTES,
    TRAFFIC_LIMITS,
)
"""Every kind the API server knows without a CustomResourceDefinition."""


@dataclass(frozen=True, slots=True)
class ResourceIndex:
    """Look up resources by kind or by what a person types."""

    by_kind: Mapping[tuple[str, str], Resource] = field(default_factory=dict)
    """(group, kind) -> resource."""

    @classmethod
    def of(cls, resources: tuple[Resource, ...] = BUILTIN) -> "ResourceIndex":
        """Index `resources`; a later one replaces an earlier one of the same (group, kind)."""
        return cls({(r.group, r.kind): r for r in resources})

    def for_object(self, obj: Mapping[str, Any]) -> Resource | None:
        """The resource of an object by its apiVersion's group and kind, or None when the kind is unknown."""
        group, _, _version = str(obj.get("apiVersion", "")).rpartition("/")
        return self.by_kind.get((group, str(obj.get("kind", ""))))

    def find(self, word: str) -> Resource | None:
        """The resource a person means by `pods`, `pod`, `po` or `deployments.apps`; None when there is none."""
        name, _, group = word.lower().partition(".")
        for resource in self.by_kind.values():
            if group and resource.group != group:
                continue
            if name in (resource.plural, resource.singular, *resource.short_names):
                return resource
        return None
