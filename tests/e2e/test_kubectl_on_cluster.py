"""What a kubectl user does all day, against real nodes: every verb of the issue on running pods."""

import json
import re

import pytest

from tests.e2e.cluster import Cluster, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_pods_run_on_three_nodes_with_their_sidecars(cluster: Cluster) -> None:
    pods = cluster.pods("type=webserver")
    assert len(pods) == 4
    assert all(any(c["name"] == "mesh-proxy" for c in pod["spec"]["initContainers"]) for pod in pods)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 3
    assert len({pod["status"]["podIP"] for pod in pods}) == 4


def test_get_wide_shows_address_and_node(cluster: Cluster) -> None:
    lines = cluster.kubectl("get", "pods", "-n", "shop", "-o", "wide").stdout.splitlines()
    assert {"NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"} <= set(lines[0].split())
    assert all(re.search(r"\b10\.244\.\d+\.\d+\b.*node-\d", line) for line in lines[1:])


def test_describe_tells_how_the_pod_came_to_run(cluster: Cluster) -> None:
    pod = cluster.pods("channel=canary")[0]["metadata"]["name"]
    text = cluster.kubectl("describe", "pod", pod, "-n", "shop").stdout
    for word in ("Scheduled", "Started", "mesh-proxy", "tomcat:8.5.5"):
        assert word in text


def test_logs_come_from_the_node(cluster: Cluster) -> None:
    pod = cluster.pods("channel=canary")[0]["metadata"]["name"]
    assert "listening on :8080" in cluster.kubectl("logs", pod, "-n", "shop", "-c", "web").stdout


def test_label_patch_and_delete(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "note", "-n", "shop", "--from-literal=a=1")
    cluster.kubectl("label", "configmap", "note", "-n", "shop", "team=red")
    cluster.kubectl("patch", "configmap", "note", "-n", "shop", "-p", '{"data":{"b":"2"}}')
    note = cluster.get_json("configmap", "note", "-n", "shop")
    assert note["data"] == {"a": "1", "b": "2"}
    assert note["metadata"]["labels"] == {"team": "red"}
    cluster.kubectl("delete", "configmap", "note", "-n", "shop")
    assert cluster.kubectl("get", "configmap", "note", "-n", "shop", check=False).returncode == 1


ROLLED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolled, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: rolled}}
  template:
    metadata: {labels: {app: rolled}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {name: web, image: tomcat, env: [{name: PORT, value: "8080"}]}
"""


def test_rollout_status_scale_and_undo(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=ROLLED)
    cluster.kubectl("rollout", "status", "deployment/rolled", "--timeout=60s")
    cluster.kubectl("set", "image", "deployment/rolled", "web=tomcat:8.5.5")
    cluster.kubectl("rollout", "status", "deployment/rolled", "--timeout=60s")
    assert _images(cluster) == {"tomcat:8.5.5"}
    cluster.kubectl("rollout", "undo", "deployment/rolled")
    cluster.kubectl("rollout", "status", "deployment/rolled", "--timeout=60s")
    wait_until("only the first image is left", lambda: _images(cluster) == {"tomcat"})
    cluster.kubectl("scale", "deployment/rolled", "--replicas=3")
    cluster.kubectl("wait", "deployment/rolled", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=60s")
    cluster.kubectl("delete", "deployment", "rolled", "--wait")
    wait_until("its pods are gone", lambda: not cluster.get_json("pods", "-l", "app=rolled")["items"])


def _images(cluster: Cluster) -> set[str]:
    items = cluster.get_json("pods", "-l", "app=rolled")["items"]
    return {p["spec"]["containers"][0]["image"] for p in items if not p["metadata"].get("deletionTimestamp")}


def test_unknown_image_says_how_to_define_it(cluster: Cluster) -> None:
    cluster.kubectl("run", "mystery", "--image=nobody/knows:1", "--restart=Never")
    try:
        wait_until(
            "the pod is in ErrImagePull or ImagePullBackOff",
            lambda: _waiting_reason(cluster, "mystery") in ("ErrImagePull", "ImagePullBackOff"),
        )
        events = cluster.kubectl("get", "events", "--field-selector=involvedObject.name=mystery", "-o", "json").stdout
        assert any("HostImage" in event["message"] for event in json.loads(events)["items"])
    finally:
        cluster.kubectl("delete", "pod", "mystery", "--wait=false")


def _waiting_reason(cluster: Cluster, pod: str) -> str:
    statuses = cluster.get_json("pod", pod)["status"].get("containerStatuses") or [{}]
    return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))
