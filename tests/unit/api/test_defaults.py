from typing import Any

import pytest
from hypothesis import given, settings

from mesh.api.defaults import apply_defaults
from mesh.api.patch import same_json
from mesh.api.resources import (
    BUILTIN,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICES,
    Json,
    Resource,
)
from mesh.api.tree import copy_json
from tests.unit.api.json_values import JSON, OBJECTS
from tests.unit.api.registry import registry

pytestmark = pytest.mark.unit


def _container(**fields: Any) -> Json:
    obj = {"spec": {"containers": [{"name": "a", "image": "x:1", **fields}]}}
    result: Json = apply_defaults(PODS, obj)["spec"]["containers"][0]
    return result


def test_pod_gets_kubernetes_defaults() -> None:
    spec = apply_defaults(PODS, {"spec": {"containers": [{"name": "a", "image": "tomcat"}], "hostname": None}})["spec"]
    assert spec == {
        "containers": [
            {
                "name": "a",
                "image": "tomcat",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("tomcat", "Always"),
        ("tomcat:latest", "Always"),
        ("tomcat:8.5.5", "IfNotPresent"),
        ("reg:5000/a/b", "Always"),
        ("reg:5000/a/b:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
    ],
)
def test_pull_policy_depends_on_the_tag(image: str, policy: str) -> None:
    assert _container(image=image)["imagePullPolicy"] == policy


def test_probes_ports_env_and_amounts_of_a_container() -> None:
    container = _container(
        ports=[{"containerPort": 80}],
        readinessProbe={"httpGet": {"port": 80}},
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        resources={"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
    )
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["env"][0]["valueFrom"]["fieldRef"] == {"fieldPath": "status.podIP", "apiVersion": "v1"}
    assert container["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }


def test_volumes_and_service_account_of_a_pod() -> None:
    volumes = [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/x"}}]
    spec = apply_defaults(PODS, {"spec": {"volumes": volumes, "serviceAccount": "bot"}})["spec"]
    assert spec["volumes"] == [
        {"name": "e", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "h", "hostPath": {"path": "/x", "type": ""}},
    ]
    assert spec["serviceAccountName"] == "bot"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"ports": [{"port": 80}]},
            {
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            },
        ),
        (
            {"type": "ExternalName", "externalName": "x.example"},
            {"type": "ExternalName", "externalName": "x.example", "sessionAffinity": "None"},
        ),
    ],
)
def test_service_defaults(spec: Json, expected: Json) -> None:
    assert apply_defaults(SERVICES, {"spec": spec})["spec"] == expected


def test_affinity_and_node_ports_bring_their_own_defaults() -> None:
    spec = apply_defaults(SERVICES, {"spec": {"type": "NodePort", "sessionAffinity": "ClientIP"}})["spec"]
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert spec["externalTrafficPolicy"] == "Cluster"


def test_workload_defaults() -> None:
    spec = apply_defaults(DEPLOYMENTS, {"spec": {"template": {"spec": {"containers": []}}, "strategy": {}}})["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    recreate = apply_defaults(DEPLOYMENTS, {"spec": {"strategy": {"type": "Recreate"}}})
    assert recreate["spec"]["strategy"] == {"type": "Recreate"}
    controller = apply_defaults(REPLICATION_CONTROLLERS, {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}})
    assert controller["spec"]["selector"] == controller["metadata"]["labels"] == {"a": "b"}


def test_other_kinds() -> None:
    assert apply_defaults(SECRETS, {"stringData": {"a": "x"}, "data": {"b": "eQ=="}}) == {
        "type": "Opaque",
        "data": {"a": "eA==", "b": "eQ=="},
    }
    namespace = apply_defaults(NAMESPACES, {"metadata": {"name": "prod"}})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "prod"}
    node = apply_defaults(NODES, {"status": {"capacity": {"cpu": 2}}})
    assert node["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}
    endpoints = apply_defaults(ENDPOINTS, {"subsets": [{"ports": [{"port": 80}]}]})
    assert endpoints["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    definition = apply_defaults(CUSTOM_RESOURCE_DEFINITIONS, {"spec": {"names": {"kind": "Widget"}}})
    assert definition["spec"] == {
        "names": {"kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "conversion": {"strategy": "None"},
    }


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda r: r.plural)
@settings(max_examples=30)
@given(spec=OBJECTS, value=JSON)
def test_defaulting_any_object_is_idempotent_and_leaves_its_argument_alone(
    resource: Resource, spec: Json, value: Any
) -> None:
    template = {"metadata": value, "spec": {"containers": [spec, value], "volumes": value, "initContainers": value}}
    obj = {"metadata": {"name": "x"}, "spec": {**spec, "template": template, "ports": value, "strategy": value}}
    before = copy_json(obj)
    once = apply_defaults(resource, obj)
    assert same_json(apply_defaults(resource, once), once)
    assert same_json(obj, before)


def test_defaulted_objects_still_fit_their_schema() -> None:
    pod = {
        "spec": {
            "containers": [{"name": "a", "image": "x", "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "v"}],
        }
    }
    for resource, obj in (
        (PODS, pod),
        (SERVICES, {"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
        (DEPLOYMENTS, {"spec": {"selector": {}, "template": pod}}),
        (REPLICATION_CONTROLLERS, {"spec": {"template": pod}}),
        (
            CUSTOM_RESOURCE_DEFINITIONS,
            {"spec": {"group": "a.b", "scope": "Cluster", "versions": [], "names": {"kind": "A", "plural": "as"}}},
        ),
    ):
        assert registry().validate(resource, apply_defaults(resource, obj)) == ()
