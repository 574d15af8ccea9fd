import subprocess
import sys

import pytest

from mesh.api.apps import Deployment
from mesh.api.core import ConfigMap, Node, Pod, Secret, Service
from mesh.api.discovery import EndpointSlice
from mesh.api.errors import ApiObjectError, ViewError
from mesh.api.int_or_string import resolve_percent
from mesh.api.meta import condition_of
from mesh.api.networking import VirtualService

pytestmark = pytest.mark.unit


def test_missing_null_and_unknown_fields_are_read_as_kubernetes_means_them() -> None:
    obj = {
        "metadata": {"name": "p", "namespace": "d", "creationTimestamp": None, "labels": None},
        "spec": {
            "containers": [{"name": "a", "ports": None, "readinessProbe": {"httpGet": {"port": "web"}}, "novel": 1}]
        },
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    pod = Pod.of(obj)
    [container] = pod.spec.containers
    assert container.readiness_probe is not None
    assert container.readiness_probe.http_get is not None
    assert (container.readiness_probe.period_seconds, container.readiness_probe.http_get.port) == (10, "web")
    assert (pod.key, pod.is_ready, pod.status.pod_ip, pod.spec.restart_policy) == ("d/p", True, "10.0.0.1", "Always")
    assert condition_of(pod.status.conditions, "Drained") is None


def test_wrong_shape_names_the_object_and_the_field() -> None:
    with pytest.raises(ViewError, match=r"Pod d/p: Expected `str`, got `int` - at `\$.spec.containers\[0\].name`"):
        Pod.of({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": 1}]}})


def test_acronyms_keep_their_spelling() -> None:
    service = Service.of({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})
    assert service.is_headless
    assert service.spec.ports[0].effective_target_port == 80
    assert service.to_json()["spec"]["clusterIP"] == "None"


def test_controller_is_the_owner_marked_so() -> None:
    owners = [{"uid": "1"}, {"uid": "2", "controller": True}]
    pod = Pod.of({"metadata": {"ownerReferences": owners}})
    assert pod.metadata.controller is not None
    assert pod.metadata.controller.uid == "2"


def test_data_is_read_as_bytes() -> None:
    assert Secret.of({"data": {"a": "eA=="}}).files() == {"a": b"x"}
    assert ConfigMap.of({"data": {"a": "x"}, "binaryData": {"b": "/w=="}}).files() == {"a": b"x", "b": b"\xff"}


def test_defaults_of_other_views() -> None:
    deployment = Deployment.of({})
    assert (deployment.spec.replicas, deployment.spec.strategy.rolling_update.max_surge) == (1, "25%")
    assert not Node.of({}).is_ready
    endpoint_slice = EndpointSlice.of({"endpoints": [{"addresses": ["10.0.0.1"]}]})
    assert endpoint_slice.endpoints[0].is_ready
    match = {"headers": {"x": {}}, "uri": {"prefix": "/"}}
    route = VirtualService.of({"spec": {"http": [{"match": [match]}]}}).spec.http[0]
    assert (route.match[0].headers["x"].exact, route.match[0].uri and route.match[0].uri.prefix) == (None, "/")


@pytest.mark.parametrize(
    ("value", "round_up", "expected"),
    [(3, True, 3), ("25%", True, 2), ("25%", False, 1), ("0%", True, 0), ("100%", False, 5)],
)
def test_percentages_of_five(value: int | str, round_up: bool, expected: int) -> None:
    assert resolve_percent(value, 5, round_up=round_up) == expected


def test_other_texts_are_no_percentage() -> None:
    with pytest.raises(ApiObjectError, match="neither a number nor a percentage"):
        resolve_percent("a quarter", 4, round_up=True)


def test_views_import_neither_schemas_nor_yaml() -> None:
    program = "import mesh.api.core, mesh.api.networking, sys; print([m for m in sys.modules if m in ('yaml', 'mesh.api.schema')])"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
