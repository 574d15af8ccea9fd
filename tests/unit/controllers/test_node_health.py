"""Nodes: health, taints, conditions, and who must leave."""

from typing import Any

import pytest

from controlplane.controllers.node_health import (
    NOT_READY,
    UNREACHABLE,
    Health,
    evict_after_s,
    health_of,
    not_ready_conditions,
    unknown_conditions,
    wanted_taints,
)
from mesh.api.core import Node, Taint
from mesh.api.pod import Pod

pytestmark = pytest.mark.unit

NOW = 1_700_000_000.0


def _node(ready: str | None = "True", *, taints: list[dict[str, str]] | None = None) -> Node:
    conditions = (
        [] if ready is None else [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]
    )
    return Node.of({"metadata": {"name": "n"}, "spec": {"taints": taints or []}, "status": {"conditions": conditions}})


@pytest.mark.parametrize(
    ("ready", "silent_s", "want"),
    [
        ("True", 0.0, Health.READY),
        ("True", 8.0, Health.READY),
        ("True", 8.1, Health.UNREACHABLE),
        ("False", 0.0, Health.NOT_READY),
        ("Unknown", 0.0, Health.NOT_READY),
        ("Unknown", 9.0, Health.UNREACHABLE),
        (None, 0.0, Health.NOT_READY),
    ],
)
def test_health(ready: str | None, silent_s: float, want: Health) -> None:
    assert health_of(_node(ready), silent_s, 8.0) is want


def test_taints_follow_the_health_and_leave_foreign_ones_alone() -> None:
    mine = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}
    taints = wanted_taints(_node(taints=[mine]), Health.UNREACHABLE, NOW)
    assert taints is not None
    assert taints[0] == mine
    assert {(t["key"], t["effect"]) for t in taints[1:]} == {(UNREACHABLE, "NoExecute"), (UNREACHABLE, "NoSchedule")}
    marked = _node(taints=taints)
    assert wanted_taints(marked, Health.UNREACHABLE, NOW) is None
    moved = wanted_taints(marked, Health.NOT_READY, NOW)
    assert moved is not None
    assert {t["key"] for t in moved} == {"dedicated", NOT_READY}
    assert wanted_taints(marked, Health.READY, NOW) == [mine]


def test_silent_node_loses_every_condition_once() -> None:
    conditions = unknown_conditions(_node(), NOW)
    assert conditions is not None
    assert {(c["type"], c["status"]) for c in conditions} == {("Ready", "Unknown"), ("DiskPressure", "Unknown")}
    assert unknown_conditions(Node.of({"status": {"conditions": conditions}}), NOW) is None
    bare = unknown_conditions(_node(None), NOW)
    assert bare is not None
    assert [c["type"] for c in bare] == ["Ready"]


def _pod(*tolerations: dict[str, Any]) -> Pod:
    conditions = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]
    return Pod.of({"spec": {"tolerations": list(tolerations)}, "status": {"conditions": conditions}})


def test_pod_of_a_dead_node_is_not_ready() -> None:
    conditions = not_ready_conditions(_pod(), NOW)
    assert conditions is not None
    assert {c["type"]: c["status"] for c in conditions} == {"Initialized": "True", "Ready": "False"}
    assert not_ready_conditions(Pod.of({}), NOW) is None


_DEAD = (Taint(key=UNREACHABLE, effect="NoSchedule"), Taint(key=UNREACHABLE, effect="NoExecute"))
_OTHER = (Taint(key="maintenance", value="x", effect="NoExecute"),)


@pytest.mark.parametrize(
    ("taints", "tolerations", "want"),
    [
        (_DEAD, [], 300.0),
        (_OTHER, [], 0.0),
        (_DEAD[:1], [], None),
        (_DEAD, [{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 7}], 7.0),
        (_DEAD, [{"key": UNREACHABLE, "operator": "Exists"}], None),
        (_DEAD, [{"operator": "Exists"}], None),
        (_DEAD, [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}], 300.0),
        (_OTHER, [{"key": "maintenance", "value": "x"}], None),
        (_OTHER, [{"key": "maintenance", "value": "y"}], 0.0),
        (_DEAD, [{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": -5}], 0.0),
        ((*_DEAD, *_OTHER), [{"key": UNREACHABLE, "operator": "Exists"}], 0.0),
    ],
)
def test_eviction_time(taints: tuple[Taint, ...], tolerations: list[dict[str, Any]], want: float | None) -> None:
    assert evict_after_s(_pod(*tolerations), taints, 300.0) == want
