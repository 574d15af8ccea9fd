"""Why a node does not take a pod."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason on one node."""

    reason: str
    """The same text for all nodes with the same problem, as kube-scheduler words it where it has words for it."""
    detail: str = ""
    """What is special on this node: figures."""
