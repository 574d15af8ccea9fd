"""The rendered bootstrap says who, where and how; values that can't work are refused."""

import json
from typing import Any

import pytest
import yaml

from mesh.xds.envoy_bootstrap import BootstrapRenderError, EnvoyIdentity, as_json, render_envoy_bootstrap

pytestmark = pytest.mark.unit
IDENTITY = EnvoyIdentity(namespace="shop", token="secret", ca_pem="PEM", labels={"app": "edge"})


def test_the_stream_carries_the_token_and_checks_the_server() -> None:
    document = yaml.safe_load(render_envoy_bootstrap(IDENTITY))
    service = document["dynamic_resources"]["ads_config"]["grpc_services"][0]
    assert service["initial_metadata"] == [{"key": "authorization", "value": "Bearer secret"}]
    cluster = document["static_resources"]["clusters"][0]
    assert cluster["name"] == service["envoy_grpc"]["cluster_name"]
    validation = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "IP_ADDRESS", "matcher": {"exact": "172.30.0.1"}}
    ]


def test_the_node_id_names_pod_and_namespace() -> None:
    node = yaml.safe_load(render_envoy_bootstrap(IDENTITY))["node"]
    assert node["id"] == "sidecar~127.0.0.1~envoy.shop~shop.svc.cluster.local"
    assert node["cluster"] == "edge.shop"


def test_json_and_yaml_say_the_same() -> None:
    text = render_envoy_bootstrap(IDENTITY)
    assert json.loads(as_json(text)) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("field", "value"), [("discovery_address", "nowhere"), ("discovery_address", ":1"), ("token", "")]
)
def test_values_that_cannot_work_are_refused(field: str, value: str) -> None:
    values: dict[str, Any] = {"namespace": "shop", "token": "t", "ca_pem": "PEM", field: value}
    with pytest.raises(BootstrapRenderError):
        render_envoy_bootstrap(EnvoyIdentity(**values))
