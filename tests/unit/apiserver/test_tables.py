"""Cells as kubectl's users know them."""

from typing import Any

import pytest

from controlplane.apiserver.kinds import KindRegistry
from controlplane.apiserver.tables.columns import duration
from controlplane.apiserver.tables.paths import keys_of, value_at
from controlplane.apiserver.tables.table import columns_of, table
from mesh.api.resources import BUILTIN, ENDPOINTS, EVENTS, NODES, PODS, SERVICES, Json, Resource

pytestmark = pytest.mark.unit

KINDS = KindRegistry.builtin()
NOW_S = 1_700_000_000.0


def _cells(resource: Resource, obj: Json) -> dict[str, Any]:
    obj.setdefault("metadata", {"name": "x"})
    shown = table(KINDS.preferred(resource), [obj], {}, now_s=NOW_S)
    names = [column["name"] for column in shown["columnDefinitions"]]
    return dict(zip(names, shown["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
        (3 * 365 * 86400, "3y"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _pod(*statuses: Json, init: tuple[Json, ...] = (), phase: str = "Running", **more: Any) -> Json:
    spec: Json = {"containers": [{"name": f"c{n}"} for n in range(max(len(statuses), 1))]}
    if init:
        spec["initContainers"] = [{"name": one["name"], **one.pop("spec", {})} for one in init]
    status: Json = {"phase": phase, "containerStatuses": list(statuses), "initContainerStatuses": list(init), **more}
    return {"metadata": {"name": "p"}, "spec": spec, "status": status}


RUNNING = {"state": {"running": {}}, "ready": True}


@pytest.mark.parametrize(
    ("pod", "ready", "status"),
    [
        (_pod(phase="Pending"), "0/1", "Pending"),
        (_pod(RUNNING), "1/1", "Running"),
        (_pod({"state": {"waiting": {"reason": "ErrImagePull"}}}, phase="Pending"), "0/1", "ErrImagePull"),
        (_pod({"state": {"terminated": {"exitCode": 3}}}), "0/1", "ExitCode:3"),
        (
            _pod({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}, phase="Succeeded"),
            "0/1",
            "Completed",
        ),
        (_pod(init=({"name": "i", "state": {"running": {}}},), phase="Pending"), "0/1", "Init:0/1"),
        (
            _pod(init=({"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},), phase="Pending"),
            "0/1",
            "Init:CrashLoopBackOff",
        ),
        (
            _pod(
                RUNNING,
                init=(
                    {
                        "name": "mesh-proxy",
                        "spec": {"restartPolicy": "Always"},
                        "state": {"running": {}},
                        "started": True,
                        "ready": True,
                    },
                ),
            ),
            "2/2",
            "Running",
        ),
    ],
)
def test_pod_status(pod: Json, ready: str, status: str) -> None:
    cells = _cells(PODS, pod)
    assert (cells["Ready"], cells["Status"]) == (ready, status)


def test_a_pod_on_its_way_out_and_its_restarts() -> None:
    ended = {"terminated": {"finishedAt": "2023-11-14T22:12:20Z"}}
    pod = _pod({**RUNNING, "restartCount": 2, "lastState": ended})
    pod["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    cells = _cells(PODS, pod)
    assert (cells["Status"], cells["Restarts"]) == ("Terminating", "2 (60s ago)")


def test_service_endpoints_node_and_event_cells() -> None:
    spec = {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}
    assert _cells(SERVICES, {"spec": spec})["Port(s)"] == "80:30080/TCP"
    subsets = [{"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 80}]}]
    assert _cells(ENDPOINTS, {"subsets": subsets})["Endpoints"] == "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."
    node = {"spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    assert _cells(NODES, node)["Status"] == "NotReady,SchedulingDisabled"
    event = {
        "involvedObject": {"kind": "Pod", "name": "p"},
        "lastTimestamp": "2023-11-14T22:13:10Z",
        "message": " hi\n",
    }
    cells = _cells(EVENTS, event)
    assert (cells["Last Seen"], cells["Object"], cells["Message"]) == ("10s", "pod/p", "hi")


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda r: r.plural)
def test_every_kind_shows_an_empty_object(resource: Resource) -> None:
    kind = KINDS.preferred(resource)
    for obj in ({"metadata": {"name": "x"}}, {"metadata": {"name": "x"}, "spec": {}, "status": {}}):
        row = table(kind, [obj], {}, now_s=NOW_S)["rows"][0]
        assert len(row["cells"]) == len(columns_of(kind))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".spec.replicas", 3),
        (".spec.list[1]", "b"),
        ('.status.conditions[?(@.type=="Ready")].status', "True"),
        (".metadata.labels['a.b/c']", "d"),
        (".spec.none.deeper", None),
        ("spec", None),
        (".spec.list[9]", None),
    ],
)
def test_small_json_paths(path: str, value: object) -> None:
    obj = {
        "spec": {"replicas": 3, "list": ["a", "b"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        "metadata": {"labels": {"a.b/c": "d"}},
    }
    assert value_at(obj, path) == value


def test_paths_of_keys() -> None:
    assert keys_of(".spec.replicas") == ("spec", "replicas")
    for path in ("spec.replicas", ".spec[0]", ".", ""):
        with pytest.raises(ValueError, match="is not a path"):
            keys_of(path)
