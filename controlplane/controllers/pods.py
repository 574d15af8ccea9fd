"""What controllers ask of a pod: is it active, available, and which ones go first when there are too many. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mesh.api.meta import condition_of
from mesh.api.pod import Pod

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 text; 0.0 when it is empty or not a time."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def format_time(wall_s: float) -> str:
    """RFC 3339 with whole seconds, UTC."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_active(pod: Pod) -> bool:
    """Counts as a replica: neither finished nor on its way out."""
    return not pod.is_finished and not pod.metadata.is_terminating


def ready_since(pod: Pod) -> float | None:
    """Wall seconds since when the pod is ready; None when it is not."""
    condition = condition_of(pod.status.conditions, "Ready")
    if condition is None or not condition.is_true:
        return None
    return parse_time(condition.last_transition_time)


def available_in_s(pod: Pod, min_ready_s: int, now: float) -> float | None:
    """0 when the pod is available, seconds until it will be, None when it is not even ready.

    Available: ready for at least `min_ready_s`. `now` is wall seconds.
    """
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, since + min_ready_s - now) if min_ready_s > 0 else 0.0


def deletion_order(pods: Sequence[Pod], siblings: Iterable[Pod] = ()) -> list[Pod]:
    """`pods`, the one to delete first in front.

    Unassigned before assigned, pending before running, not ready before ready, low deletion cost first, then the one with more
    ready siblings on its node, ready for a shorter time, more restarts, younger. `siblings` are pods of the same owner's other
    replica sets. Source: Kubernetes, "ReplicaSet", scaling down.
    """
    per_node = Counter(pod.spec.node_name for pod in (*pods, *siblings) if pod.spec.node_name and is_active(pod))

    def rank(pod: Pod) -> tuple[float, ...]:
        since = ready_since(pod)
        restarts = max((status.restart_count for status in pod.status.container_statuses), default=0)
        return (
            1 if pod.spec.node_name else 0,
            _PHASE_RANK.get(pod.status.phase, 0),
            0 if since is None else 1,
            _cost(pod),
            -per_node[pod.spec.node_name],
            -(since or 0.0),
            -restarts,
            -parse_time(pod.metadata.creation_timestamp),
        )

    return sorted(pods, key=lambda pod: (rank(pod), pod.metadata.name))


def _cost(pod: Pod) -> int:
    text = pod.metadata.annotations.get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0
