"""Who may do what. A fixed policy of least privilege behind a protocol; RBAC can take its place.

Masters and the control plane may do everything; a node what its agent needs, about its own pods only; everybody else,
service accounts included, may ask about themselves and read discovery documents.
"""

from dataclasses import dataclass
from typing import Protocol

from controlplane.apiserver.authentication import Identity
from controlplane.apiserver.home import CONTROL_PLANE_USER, MASTERS

NODES_GROUP = "system:nodes"
NODE_USER_PREFIX = "system:node:"
HEARTBEAT_NAMESPACE = "kube-node-lease"

READ = frozenset({"get", "list", "watch"})
_SELF_REVIEWS = frozenset(
    {
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
    }
)
_NODE_READS = frozenset(
    {
        ("", "pods"),
        ("", "services"),
        ("", "endpoints"),
        ("", "nodes"),
        ("", "namespaces"),
        ("discovery.k8s.io", "endpointslices"),
        ("node.meshwork.dev", "hostimages"),
    }
)
_POD_REFERENCES = frozenset({"configmaps", "secrets", "serviceaccounts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is to be done. For a path that is no resource, only `verb` and `path` are set."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes, or no and why."""

    is_allowed: bool
    reason: str = ""


ALLOWED = Decision(True)


class Authorizer(Protocol):
    """Decides about one request. Called for every request, so quick and without waiting."""

    def authorize(self, identity: Identity, attributes: Attributes) -> Decision: ...


class PodFacts(Protocol):
    """What the authorizer must know about pods to keep nodes apart."""

    def node_of(self, namespace: str, pod: str) -> str | None:
        """The node a pod is bound to; None for a pod that doesn't exist."""
        ...

    def node_uses(self, node: str, plural: str, namespace: str, name: str) -> bool:
        """Whether a pod on the node refers to that ConfigMap, Secret or ServiceAccount."""
        ...


class FixedAuthorizer:
    """The policy in this module's docstring."""

    def __init__(self, pods: PodFacts) -> None:
        self._pods = pods

    def authorize(self, identity: Identity, attributes: Attributes) -> Decision:
        if MASTERS in identity.groups or CONTROL_PLANE_USER in identity.groups:
            return ALLOWED
        if attributes.path:
            return _decide(attributes.verb == "get", "only masters may change that")
        if attributes.verb == "create" and (attributes.group, attributes.resource) in _SELF_REVIEWS:
            return ALLOWED
        if NODES_GROUP in identity.groups and identity.user.startswith(NODE_USER_PREFIX):
            return self._node(identity.user.removeprefix(NODE_USER_PREFIX), attributes)
        return Decision(False, "no rule allows it")

    def _node(self, node: str, asked: Attributes) -> Decision:
        place = (asked.group, asked.resource)
        if place in _NODE_READS and asked.verb in READ and not asked.subresource:
            return ALLOWED
        if place == ("", "nodes"):
            return self._own_node(node, asked)
        if place == ("", "pods"):
            return self._own_pod(node, asked)
        if place == ("", "events"):
            return _decide(
                asked.verb in ("create", "update", "patch") and not asked.subresource, "nodes only write events"
            )
        if place == ("coordination.k8s.io", "leases"):
            is_own = asked.namespace == HEARTBEAT_NAMESPACE and (asked.verb == "create" or asked.name == node)
            return _decide(
                is_own and asked.verb != "delete", f"nodes only keep their own lease in {HEARTBEAT_NAMESPACE}"
            )
        if asked.group == "" and asked.resource in _POD_REFERENCES:
            return self._referenced(node, asked)
        return Decision(False, "no rule for nodes allows it")

    def _own_node(self, node: str, asked: Attributes) -> Decision:
        may = asked.verb == "create" or (asked.verb in ("update", "patch") and asked.name == node)
        return _decide(may and asked.subresource in ("", "status"), f'node "{node}" may only change its own Node')

    def _own_pod(self, node: str, asked: Attributes) -> Decision:
        changes_status = asked.subresource == "status" and asked.verb in ("get", "update", "patch")
        deletes = asked.subresource == "" and asked.verb == "delete"
        if not (changes_status or deletes):
            return Decision(False, "nodes only report the status of pods and delete ended ones")
        bound_to = self._pods.node_of(asked.namespace, asked.name)
        return _decide(bound_to in (None, node), f'pod {asked.namespace}/{asked.name} is not bound to node "{node}"')

    def _referenced(self, node: str, asked: Attributes) -> Decision:
        if asked.resource == "serviceaccounts":
            may = (asked.verb == "create" and asked.subresource == "token") or (
                asked.verb == "get" and asked.subresource == ""
            )
        else:
            may = asked.verb in READ and asked.subresource == ""
        if not (may and asked.name):
            return Decision(False, f"nodes read {asked.resource} only one by one, by name")
        return _decide(
            self._pods.node_uses(node, asked.resource, asked.namespace, asked.name),
            f'no pod bound to node "{node}" refers to {asked.resource} {asked.namespace}/{asked.name}',
        )


def _decide(is_allowed: bool, reason: str) -> Decision:
    return ALLOWED if is_allowed else Decision(False, reason)
