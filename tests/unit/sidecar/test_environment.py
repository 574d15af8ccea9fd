"""The environment that injection sets."""

from pathlib import Path

import pytest

from sidecar.environment import EnvironmentVariableError, read_environment

pytestmark = pytest.mark.unit

VARIABLES = {
    "POD_NAME": "web-1",
    "POD_NAMESPACE": "shop",
    "POD_IP": "10.244.1.5",
    "NODE_NAME": "node-1",
    "SERVICE_ACCOUNT": "web",
    "MESH_LABELS": '{"app":"web","version":"v1"}',
    "MESH_WORKLOAD": "web",
    "MESH_APP_CONTAINERS": "app,logger",
    "MESH_DISCOVERY_ADDRESS": "172.30.0.1:15012",
}


def test_identity_and_node_metadata() -> None:
    found = read_environment(VARIABLES)
    assert found.identity.node_id == "sidecar~10.244.1.5~web-1.shop~shop.svc.cluster.local"
    assert found.identity.cluster == "web.shop"
    assert found.discovery == ("172.30.0.1", 15012)
    assert found.token_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    metadata = found.identity.metadata()
    assert metadata["LABELS"] == {"app": "web", "version": "v1"}
    assert (metadata["PROXY"], metadata["INTERCEPTION_MODE"]) == ("meshwork", "REDIRECT")


@pytest.mark.parametrize(("value", "count"), [("", 1), ("1", 1), ("4", 4), ("0", 0)])
def test_concurrency_is_a_count_of_workers(value: str, count: int) -> None:
    assert read_environment({**VARIABLES, "MESH_CONCURRENCY": value}).concurrency == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"POD_IP": ""}, "POD_IP not set"),
        ({"MESH_DISCOVERY_ADDRESS": "nowhere"}, "want ADDRESS:PORT"),
        ({"MESH_CONCURRENCY": "-1"}, "MESH_CONCURRENCY is '-1', want 0"),
        ({"MESH_CONCURRENCY": "65"}, "MESH_CONCURRENCY is '65'"),
        ({"MESH_LABELS": "app=web"}, "MESH_LABELS is not a JSON object"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentVariableError, match=message):
        read_environment({**VARIABLES, **change})
