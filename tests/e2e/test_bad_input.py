"""Bad input gets a clear answer, changes nothing, and leaves its neighbours alone."""

import pytest

from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

GOOD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: innocent}\ndata: {a: b}\n"
BAD = {
    "unknown field": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - {name: a, image: host, colour: red}\n",
        "colour",
    ),
    "wrong type": (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}\n",
        "spec.replicas",
    ),
    "unknown kind": ("apiVersion: v1\nkind: Podd\nmetadata: {name: x}\n", "Podd"),
    "bad YAML": ("apiVersion: v1\nkind: [Pod\n", "not YAML"),
    "weights": (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: shop}\n"
        "spec:\n  hosts: [webserver]\n  http:\n"
        "  - route:\n    - {destination: {host: webserver}, weight: 60}\n    - {destination: {host: webserver}, weight: 30}\n",
        "90",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_manifest_is_refused_with_its_place_and_nothing_is_applied(cluster: Cluster, name: str) -> None:
    text, expected = BAD[name]
    done = cluster.mesh("apply", "-f", "-", stdin=f"{GOOD}---\n{text}", check=False)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "<stdin>:" in done.stderr
    assert cluster.kubectl("get", "configmap", "innocent", check=False).returncode == 1


ROUTE_TO_NOWHERE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nowhere, namespace: shop}
spec:
  hosts: [nowhere]
  http:
  - route:
    - destination: {host: does-not-exist}
"""


def test_a_route_to_a_missing_host_shows_in_status_and_traffic_goes_on(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=ROUTE_TO_NOWHERE)
    try:
        cluster.kubectl(
            "wait", "virtualservice/nowhere", "-n", "shop", "--for=condition=Accepted=False", "--timeout=20s"
        )
        status = cluster.get_json("virtualservice", "nowhere", "-n", "shop")["status"]
        accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
        assert "does-not-exist" in accepted["message"]
        client = cluster.pods("app=client")[0]["metadata"]["name"]
        report = cluster.post(f"{client}:8081", "run?url=http://webserver/&count=100")
        assert report["failed"] == 0
        assert report["total"] == 100
    finally:
        cluster.kubectl("delete", "virtualservice", "nowhere", "-n", "shop")
