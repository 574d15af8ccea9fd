"""The control plane and a sidecar are killed under traffic: nothing is lost, everything converges, no pod is restarted."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import EXAMPLES, Cluster, running_cluster, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with the canary example: this module breaks things, so it has a cluster of its own."""
    with running_cluster(tmp_path_factory.mktemp("mesh"), nodes=2) as running:
        running.mesh("apply", "-f", str(EXAMPLES / "canary"), "--wait")
        yield running


def _restarts(cluster: Cluster) -> dict[str, list[tuple[str, int, str]]]:
    """Per pod: container, restart count, container id."""
    found = {}
    for pod in cluster.pods(""):
        status = pod["status"]
        containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        found[pod["metadata"]["name"]] = [(c["name"], c["restartCount"], c.get("containerID", "")) for c in containers]
    return found


def _client(cluster: Cluster) -> str:
    return f"{cluster.pods('app=client')[0]['metadata']['name']}:8081"


def test_traffic_goes_on_while_the_control_plane_is_dead(cluster: Cluster) -> None:
    before = _restarts(cluster)
    client = _client(cluster)
    cluster.post(client, "start?url=http://webserver/&concurrency=4&rate=200")
    cluster.kill("-m controlplane", "controlplane.json")
    wait_until("the API answers again", lambda: cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0)
    cluster.mesh("status", "--wait", "60")
    wait_until("the API shows the load's pod", lambda: bool(cluster.pods("app=client")))
    report = cluster.post(client, "stop")
    assert report["total"] > 100
    assert report["failed"] == 0, report
    assert _restarts(cluster) == before
    cluster.mesh("apply", "-f", str(EXAMPLES / "canary" / "promote" / "40-promote.yaml"), "--wait")
    after = cluster.post(client, "run?url=http://webserver/&count=100")
    assert after["by_channel"] == {"canary": 100}


def test_a_killed_sidecar_is_started_again_alone(cluster: Cluster) -> None:
    name = cluster.pods("channel=canary")[0]["metadata"]["name"]
    before = {container: (count, id_) for container, count, id_ in _restarts(cluster)[name]}
    os.kill(_sidecar_pid(name), signal.SIGKILL)
    wait_until(
        "the sidecar's restart is counted", lambda: _now(cluster, name)["mesh-proxy"][0] == before["mesh-proxy"][0] + 1
    )
    cluster.kubectl("wait", f"pod/{name}", "-n", "shop", "--for=condition=Ready", "--timeout=30s")
    assert _now(cluster, name)["web"] == before["web"]
    report = cluster.post(_client(cluster), "run?url=http://webserver/&count=200")
    assert report["failed"] == 0, report


def _now(cluster: Cluster, pod: str) -> dict[str, tuple[int, str]]:
    return {container: (count, id_) for container, count, id_ in _restarts(cluster)[pod]}


def _sidecar_pid(pod: str) -> int:
    """The pod's sidecar: a forked process without the pod's name in its environment, so it is found by the pod's network."""
    applications = [p for p in _processes() if f"POD_NAME={pod}".encode() in _read(p / "environ").split(b"\0")]
    networks = {os.readlink(p / "ns" / "net") for p in applications}
    assert networks, f"no process of {pod}"
    found = [p for p in _processes() if b"sidecar" in _read(p / "cmdline") and _network(p) in networks]
    assert found, f"no sidecar in the network namespace of {pod}"
    return int(found[0].name)


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended meanwhile


def _network(process: Path) -> str:
    try:
        return os.readlink(process / "ns" / "net")
    except OSError:
        return ""
