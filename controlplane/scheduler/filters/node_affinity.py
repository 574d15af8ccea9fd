"""The pod's required node affinity. Source: Kubernetes, "Assigning Pods to Nodes"."""

from collections.abc import Mapping

from controlplane.scheduler.filters.refusal import Refusal
from mesh.api.core import Node, Pod
from mesh.api.pod import NodeSelectorRequirement, NodeSelectorTerm


def check(pod: Pod, node: Node) -> Refusal | None:
    """One of the required terms holds, or there are none."""
    affinity = pod.spec.affinity.node_affinity
    if affinity is None or affinity.required is None:
        return None
    if any(term_matches(term, node) for term in affinity.required.node_selector_terms):
        return None
    return Refusal("node(s) didn't match Pod's node affinity/selector", "required node affinity")


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """Every expression and field holds; an empty term matches nothing."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(_holds(one, node.metadata.labels) for one in term.match_expressions) and all(
        _holds(one, fields) for one in term.match_fields
    )


def _holds(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(requirement, value)
    return False


def _compares(requirement: NodeSelectorRequirement, value: str | None) -> bool:
    try:
        number, bound = int(value or ""), int(requirement.values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if requirement.operator == "Gt" else number < bound
