"""Which pods get a sidecar, and what exactly they get."""

import copy
import json
from typing import Any

import pytest

from mesh.api.pod import Pod
from mesh.api.resources import Json
from policies.errors import InjectionError
from policies.injection import InjectionConfig, decide, inject_manifest, inject_pod, workload_name

pytestmark = pytest.mark.unit


def pod(**spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "tomcat"}], **spec},
    }


@pytest.mark.parametrize(
    ("labels", "annotations", "namespace_labels", "expected"),
    [
        ({}, {}, {}, False),
        ({}, {}, {"istio-injection": "enabled"}, True),
        ({}, {}, {"istio.io/rev": "default"}, True),
        ({}, {}, {"istio-injection": "disabled", "istio.io/rev": "default"}, False),
        ({"sidecar.istio.io/inject": "true"}, {}, {}, True),
        ({}, {"sidecar.istio.io/inject": "true"}, {}, True),
        ({"sidecar.istio.io/inject": "true"}, {}, {"istio-injection": "disabled"}, False),
        ({"sidecar.istio.io/inject": "false"}, {}, {"istio-injection": "enabled"}, False),
        ({}, {"sidecar.istio.io/inject": "false"}, {"istio-injection": "enabled"}, False),
        ({"sidecar.istio.io/inject": "false"}, {"sidecar.istio.io/inject": "true"}, {}, False),
    ],
)
def test_labels_and_annotations_decide(
    labels: dict[str, str], annotations: dict[str, str], namespace_labels: dict[str, str], expected: bool
) -> None:
    subject = pod()
    subject["metadata"] |= {"labels": labels, "annotations": annotations}
    assert decide(subject, "shop", namespace_labels).injects is expected


def test_host_network_and_system_namespaces_stay_out() -> None:
    enabled = {"istio-injection": "enabled"}
    assert not decide(pod(hostNetwork=True), "shop", enabled).injects
    assert not decide(pod(), "kube-system", enabled).injects
    assert "hostNetwork" in decide(pod(hostNetwork=True), "shop", enabled).reason


def test_sidecar_is_the_first_init_container_and_native() -> None:
    subject = pod(initContainers=[{"name": "migrate", "image": "migrate"}])
    before = copy.deepcopy(subject)
    injected = Pod.of(inject_pod(subject, InjectionConfig(discovery_address="10.0.0.1:15012")))
    assert subject == before
    proxy, migrate = injected.spec.init_containers
    assert (proxy.name, proxy.image, proxy.restart_policy) == ("mesh-proxy", "meshwork/sidecar", "Always")
    assert migrate.name == "migrate"
    assert proxy.startup_probe is not None
    assert proxy.startup_probe.http_get is not None
    assert (proxy.startup_probe.http_get.port, proxy.startup_probe.http_get.path) == (15021, "/healthz/ready")
    assert (proxy.startup_probe.period_seconds, proxy.startup_probe.failure_threshold) == (1, 60)
    assert proxy.readiness_probe is not None
    env = {e.name: e.value for e in proxy.env}
    assert env["MESH_DISCOVERY_ADDRESS"] == "10.0.0.1:15012"
    assert json.loads(env["MESH_LABELS"]) == {"app": "web"}
    assert env["MESH_APP_CONTAINERS"] == "app"
    fields = {e.name: e.value_from.field_ref.field_path for e in proxy.env if e.value_from and e.value_from.field_ref}
    assert fields["POD_IP"] == "status.podIP"
    assert injected.metadata.annotations["meshwork.dev/interception"] == "redirect"


def test_injection_is_idempotent() -> None:
    once = inject_pod(pod())
    assert inject_pod(once) == once


def test_references_in_labels_are_not_expanded_by_the_node() -> None:
    subject = pod()
    subject["metadata"]["labels"] = {"a": "$(POD_NAME)"}
    env = {e["name"]: e.get("value") for e in inject_pod(subject)["spec"]["initContainers"][0]["env"]}
    assert env["MESH_LABELS"] == '{"a": "$$(POD_NAME)"}'


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"automountServiceAccountToken": False}, "automountServiceAccountToken"),
        ({"containers": [{"name": "mesh-proxy", "image": "x"}]}, "rename the container"),
    ],
)
def test_a_pod_the_sidecar_cannot_work_in_is_refused(spec: Json, message: str) -> None:
    with pytest.raises(InjectionError, match=message):
        inject_pod(pod(**spec))


def test_workload_is_the_deployment_behind_the_replica_set() -> None:
    subject = pod()
    subject["metadata"] |= {
        "labels": {"pod-template-hash": "7d4b9"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d4b9", "controller": True}],
    }
    assert workload_name(subject) == "web"
    assert workload_name({"metadata": {"generateName": "job-"}}) == "job"


@pytest.mark.parametrize("kind", ["Deployment", "Job", "StatefulSet"])
def test_manifests_get_the_sidecar_in_their_template(kind: str) -> None:
    manifest = {"kind": kind, "metadata": {"name": "web"}, "spec": {"template": {"spec": pod()["spec"]}}}
    template = inject_manifest(manifest)["spec"]["template"]
    assert template["spec"]["initContainers"][0]["name"] == "mesh-proxy"
    env = {e["name"]: e.get("value") for e in template["spec"]["initContainers"][0]["env"]}
    assert env["MESH_WORKLOAD"] == "web"


def test_manifests_without_pods_and_opted_out_pods_are_unchanged() -> None:
    service = {"kind": "Service", "metadata": {"name": "web"}, "spec": {}}
    assert inject_manifest(service) is service
    out = pod()
    out["metadata"]["annotations"] = {"sidecar.istio.io/inject": "false"}
    assert inject_manifest(out) == out
    listed = inject_manifest({"kind": "List", "items": [pod(), service]})
    assert listed["items"][0]["spec"]["initContainers"][0]["name"] == "mesh-proxy"
    assert listed["items"][1] == service
