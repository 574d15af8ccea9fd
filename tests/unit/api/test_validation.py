from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.defaults import apply_defaults
from mesh.api.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    LEASES,
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
from mesh.api.validation import validate_object
from mesh.api.validation_names import check_dns_label, check_dns_subdomain, check_port_name
from tests.unit.api.registry import registry

pytestmark = pytest.mark.unit


def _meta(resource: Resource, **more: Any) -> Json:
    return {"name": "web", **({"namespace": "default"} if resource.is_namespaced else {}), **more}


def _paths(resource: Resource, body: Json, old: Json | None = None) -> list[str]:
    """Error paths of a defaulted object that fits its schema."""
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": _meta(resource), **body}
    assert registry().validate(resource, obj) == ()
    return [e.path for e in validate_object(resource, apply_defaults(resource, obj), old)]


def _pod_paths(**spec: Any) -> list[str]:
    return [
        p.removeprefix("spec.") for p in _paths(PODS, {"spec": {"containers": [{"name": "a", "image": "x"}], **spec}})
    ]


def _container_paths(**container: Any) -> list[str]:
    found = _pod_paths(containers=[{"name": "a", "image": "x", **container}], volumes=[{"name": "data"}])
    return [path.removeprefix("containers[0].") for path in found]


@pytest.mark.parametrize(
    ("name", "is_label", "is_subdomain"),
    [
        ("web", True, True),
        ("a-1", True, True),
        ("1a", True, True),
        ("a.b", False, True),
        ("", False, False),
        ("Web", False, False),
        ("-a", False, False),
        ("a-", False, False),
        ("a..b", False, False),
        ("a_b", False, False),
        ("a\n", False, False),
        ("a" * 63, True, True),
        ("a" * 64, False, True),
        (".".join(["a" * 60] * 5), False, False),
    ],
)
def test_names(name: str, is_label: bool, is_subdomain: bool) -> None:
    assert (not check_dns_label(name, "n"), not check_dns_subdomain(name, "n")) == (is_label, is_subdomain)


@pytest.mark.parametrize(
    ("name", "is_good"), [("http", True), ("http-2", True), ("80", False), ("a--b", False), ("a" * 16, False)]
)
def test_port_names(name: str, is_good: bool) -> None:
    assert (not check_port_name(name, "p")) is is_good


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, []),
        ({"name": ""}, ["metadata.name"]),
        ({"name": "", "generateName": "web-"}, []),
        ({"name": "", "generateName": "Web-"}, ["metadata.generateName"]),
        ({"name": "a/b"}, ["metadata.name"]),
        ({"namespace": ""}, ["metadata.namespace"]),
        ({"labels": {"app": "web", "x.y/z": ""}}, []),
        ({"labels": {"app": "no spaces"}}, ["metadata.labels.app"]),
        ({"labels": {"-a": "b"}}, ["metadata.labels"]),
        ({"labels": {"-/a": "b"}}, ["metadata.labels"]),
        ({"annotations": {"a b": "any text"}}, ["metadata.annotations"]),
        ({"annotations": {"a": "x" * 262_144}}, ["metadata.annotations"]),
        ({"finalizers": ["example.com/x", "no good"]}, ["metadata.finalizers[1]"]),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]},
            ["metadata.ownerReferences[0].uid"],
        ),
        (
            {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "P", "name": n, "uid": n, "controller": True} for n in "ab"
                ]
            },
            ["metadata.ownerReferences"],
        ),
    ],
)
def test_metadata(metadata: Json, expected: list[str]) -> None:
    body = {"metadata": {**_meta(CONFIG_MAPS), **metadata}}
    assert _paths(CONFIG_MAPS, body) == expected


def test_cluster_scoped_objects_have_no_namespace_and_services_start_with_a_letter() -> None:
    assert _paths(NAMESPACES, {"metadata": {"name": "a", "namespace": "b"}}) == ["metadata.namespace"]
    service = {"metadata": _meta(SERVICES, name="1a"), "spec": {"ports": [{"port": 80}]}}
    assert _paths(SERVICES, service) == ["metadata.name"]


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, []),
        ({"name": "A"}, ["name"]),
        ({"image": ""}, ["image"]),
        ({"image": " x"}, ["image"]),
        ({"imagePullPolicy": "Sometimes"}, ["imagePullPolicy"]),
        ({"restartPolicy": "Always"}, ["restartPolicy"]),
        ({"ports": [{"containerPort": 0}]}, ["ports[0].containerPort"]),
        ({"ports": [{"containerPort": 70000}]}, ["ports[0].containerPort"]),
        ({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}, ["ports[1].name"]),
        ({"ports": [{"containerPort": 1, "protocol": "ICMP"}]}, ["ports[0].protocol"]),
        ({"env": [{"name": "A=B"}]}, ["env[0].name"]),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            ["env[0].valueFrom"],
        ),
        ({"env": [{"name": "A", "valueFrom": {}}]}, ["env[0].valueFrom"]),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.volumes"}}}]},
            ["env[0].valueFrom.fieldRef.fieldPath"],
        ),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]}, []),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}]},
            ["env[0].valueFrom.secretKeyRef.key"],
        ),
        ({"envFrom": [{"configMapRef": {"name": "c"}, "secretRef": {"name": "s"}}]}, ["envFrom[0].secretRef"]),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x"}]}, []),
        ({"volumeMounts": [{"name": "none", "mountPath": "/x"}]}, ["volumeMounts[0].name"]),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x"}] * 2}, ["volumeMounts[1].mountPath"]),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "../y"}]}, ["volumeMounts[0].subPath"]),
        ({"livenessProbe": {}}, ["livenessProbe"]),
        ({"livenessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}}, ["livenessProbe.tcpSocket"]),
        ({"livenessProbe": {"exec": {}}}, ["livenessProbe.exec.command"]),
        ({"livenessProbe": {"httpGet": {"port": "Web"}}}, ["livenessProbe.httpGet.port"]),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}, ["livenessProbe.successThreshold"]),
        ({"readinessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}, []),
        ({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 0}}, ["readinessProbe.periodSeconds"]),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": -1}}}}, ["lifecycle.preStop.sleep.seconds"]),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}, ["resources.requests.cpu"]),
        ({"resources": {"limits": {"memory": "lots"}}}, ["resources.limits.memory", "resources.requests.memory"]),
        ({"resources": {"requests": {"cpu": "-1"}}}, ["resources.requests.cpu"]),
    ],
)
def test_containers(container: Json, expected: list[str]) -> None:
    assert _container_paths(**container) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": []}, ["containers"]),
        ({"containers": [{"name": "a", "image": "x"}] * 2}, ["containers[1].name"]),
        ({"initContainers": [{"name": "a", "image": "x"}]}, ["containers[0].name"]),
        (
            {
                "initContainers": [
                    {"name": "i", "image": "x", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
                ]
            },
            [],
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "startupProbe": {"tcpSocket": {"port": 1}}}]},
            ["initContainers[0].startupProbe"],
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "restartPolicy": "Never"}]},
            ["initContainers[0].restartPolicy"],
        ),
        ({"restartPolicy": "Sometimes"}, ["restartPolicy"]),
        ({"dnsPolicy": "None"}, ["dnsConfig.nameservers"]),
        ({"terminationGracePeriodSeconds": -1}, ["terminationGracePeriodSeconds"]),
        ({"hostname": "a.b"}, ["hostname"]),
        ({"serviceAccountName": "A"}, ["serviceAccountName"]),
        ({"nodeSelector": {"disk": "a b"}}, ["nodeSelector.disk"]),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, ["volumes[1].name"]),
        ({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}, ["volumes[0].secret"]),
        ({"volumes": [{"name": "v", "configMap": {}}]}, ["volumes[0].configMap.name"]),
        (
            {"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/abs"}]}}]},
            ["volumes[0].secret.items[0].path"],
        ),
        ({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "big"}}]}, ["volumes[0].emptyDir.sizeLimit"]),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}, ["volumes[0].hostPath.path"]),
        ({"hostAliases": [{"ip": "nowhere"}]}, ["hostAliases[0].ip"]),
        ({"tolerations": [{"operator": "Exists"}]}, []),
        ({"tolerations": [{"operator": "Equal", "value": "x"}]}, ["tolerations[0].operator"]),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, ["tolerations[0].value"]),
        ({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}]}, ["tolerations[0].effect"]),
        (
            {
                "hostNetwork": True,
                "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 1, "hostPort": 2}]}],
            },
            ["containers[0].ports[0].hostPort"],
        ),
    ],
)
def test_pods(spec: Json, expected: list[str]) -> None:
    assert _pod_paths(**spec) == expected


AFFINITY = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        ({"nodeSelectorTerms": []}, ["nodeSelectorTerms"]),
        ({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}, []),
        (
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]},
            ["nodeSelectorTerms[0].matchExpressions[0].values"],
        ),
        (
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["x"]}]}]},
            ["nodeSelectorTerms[0].matchExpressions[0].values"],
        ),
        (
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]},
            ["nodeSelectorTerms[0].matchExpressions[0].operator"],
        ),
        (
            {"nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["b"]}]}]},
            ["nodeSelectorTerms[0].matchFields[0].key"],
        ),
    ],
)
def test_node_affinity(required: Json, expected: list[str]) -> None:
    found = _pod_paths(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    assert found == [f"{AFFINITY}.{path}" for path in expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda pod: pod["spec"]["containers"][0].update(image="x:2"), []),
        (lambda pod: pod["spec"].update(activeDeadlineSeconds=5), []),
        (lambda pod: pod["spec"]["tolerations"].append({"key": "b", "operator": "Exists"}), []),
        (lambda pod: pod["metadata"].update(labels={"a": "b"}), []),
        (lambda pod: pod["spec"]["tolerations"].clear(), ["spec"]),
        (lambda pod: pod["spec"].update(nodeName="other"), ["spec"]),
        (lambda pod: pod["spec"]["containers"].append({"name": "b", "image": "x"}), ["spec"]),
        (lambda pod: pod["spec"]["containers"][0].update(command=["x"]), ["spec"]),
        (lambda pod: pod["metadata"].update(name="other"), ["metadata.name"]),
        (lambda pod: pod["metadata"].update(uid="2"), ["metadata.uid"]),
    ],
)
def test_pod_updates_may_change_only_what_kubernetes_lets(change: Callable[[Json], None], expected: list[str]) -> None:
    spec = {
        "nodeName": "node-1",
        "containers": [{"name": "a", "image": "x:1"}],
        "tolerations": [{"key": "a", "operator": "Exists"}],
    }
    old = apply_defaults(PODS, {"metadata": {**_meta(PODS), "uid": "1"}, "spec": spec})
    new = copy_json(old)
    change(new)
    assert [e.path for e in validate_object(PODS, new, old)] == expected


def test_binding_may_set_an_empty_node_name() -> None:
    old = apply_defaults(PODS, {"metadata": _meta(PODS), "spec": {"containers": [{"name": "a", "image": "x"}]}})
    assert validate_object(PODS, {**old, "spec": {**old["spec"], "nodeName": "node-1"}}, old) == ()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [{"port": 80}]}, []),
        ({"ports": []}, ["ports"]),
        ({"clusterIP": "None"}, []),
        ({"type": "Sometimes", "ports": [{"port": 80}]}, ["type"]),
        ({"ports": [{"port": 80}, {"port": 81}]}, ["ports[0].name", "ports[1].name"]),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, ["ports[1].name"]),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, ["ports[1]"]),
        ({"ports": [{"port": 0}]}, ["ports[0].port", "ports[0].targetPort"]),
        ({"ports": [{"port": 80, "targetPort": "Not A Port"}]}, ["ports[0].targetPort"]),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, ["ports[0].nodePort"]),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000}]}, []),
        ({"clusterIP": "10.96.0.300", "ports": [{"port": 80}]}, ["clusterIP"]),
        ({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}, ["clusterIP"]),
        ({"type": "ExternalName"}, ["externalName"]),
        ({"sessionAffinity": "Forever", "ports": [{"port": 80}]}, ["sessionAffinity"]),
        ({"selector": {"a": "b c"}, "ports": [{"port": 80}]}, ["selector.a"]),
    ],
)
def test_services(spec: Json, expected: list[str]) -> None:
    assert _paths(SERVICES, {"spec": spec}) == [f"spec.{path}" for path in expected]


def test_service_address_stays() -> None:
    old = {"metadata": _meta(SERVICES), "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.5"}}
    assert _paths(SERVICES, {"spec": {"clusterIP": "10.96.0.6", "ports": [{"port": 1}]}}, old) == ["spec.clusterIP"]


def _deployment(**spec: Any) -> Json:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    return {"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"replicas": -1}, ["replicas"]),
        ({"selector": {}}, ["selector"]),
        ({"selector": {"matchLabels": {"app": "db"}}}, ["template.metadata.labels"]),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            ["selector.matchExpressions[0].values"],
        ),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "Near"}]}},
            ["selector.matchExpressions[0].operator"],
        ),
        ({"strategy": {"type": "Quickly"}}, ["strategy.type"]),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {}}}, ["strategy.rollingUpdate"]),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            ["strategy.rollingUpdate.maxUnavailable"],
        ),
        ({"strategy": {"rollingUpdate": {"maxSurge": "lots"}}}, ["strategy.rollingUpdate.maxSurge"]),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}, ["strategy.rollingUpdate.maxUnavailable"]),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5}, ["progressDeadlineSeconds"]),
    ],
)
def test_deployments(spec: Json, expected: list[str]) -> None:
    assert _paths(DEPLOYMENTS, _deployment(**spec)) == [f"spec.{path}" for path in expected]


def test_template_pods_restart_always_and_are_checked_like_pods() -> None:
    body = _deployment()
    body["spec"]["template"]["spec"].update(restartPolicy="Never", containers=[{"name": "a", "image": ""}])
    assert _paths(DEPLOYMENTS, body) == ["spec.template.spec.containers[0].image", "spec.template.spec.restartPolicy"]


def test_deployment_selector_stays() -> None:
    old = apply_defaults(DEPLOYMENTS, {"metadata": _meta(DEPLOYMENTS), **_deployment()})
    old["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    assert _paths(DEPLOYMENTS, _deployment(), old) == ["spec.selector"]


def test_replication_controller_needs_a_template_its_selector_matches() -> None:
    assert _paths(REPLICATION_CONTROLLERS, {"spec": {}}) == ["spec.selector", "spec.template"]
    body = _deployment(selector={"app": "db"})
    assert _paths(REPLICATION_CONTROLLERS, body) == ["spec.template.metadata.labels"]


CRD_VERSION = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}


def _crd(**spec: Any) -> Json:
    names = {"plural": "widgets", "kind": "Widget"}
    full = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [CRD_VERSION], **spec}
    return {"metadata": {"name": "widgets.example.com"}, "spec": full}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_crd(), []),
        (_crd(group="example"), ["spec.group", "metadata.name"]),
        (_crd(scope="World"), ["spec.scope"]),
        (_crd(versions=[]), ["spec.versions"]),
        (_crd(versions=[CRD_VERSION, CRD_VERSION]), ["spec.versions", "spec.versions[1].name"]),
        (_crd(versions=[{**CRD_VERSION, "schema": {}}]), ["spec.versions[0].schema.openAPIV3Schema"]),
        (
            _crd(
                versions=[
                    {
                        **CRD_VERSION,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "x"}}}},
                    }
                ]
            ),
            ["spec.versions[0].schema.openAPIV3Schema"],
        ),
        (_crd(names={"plural": "Widgets", "kind": "Widget"}), ["spec.names.plural", "metadata.name"]),
    ],
)
def test_custom_resource_definitions(body: Json, expected: list[str]) -> None:
    assert _paths(CUSTOM_RESOURCE_DEFINITIONS, body) == expected


@pytest.mark.parametrize(
    ("resource", "body", "expected"),
    [
        (CONFIG_MAPS, {"data": {"a/b": "x"}}, ["data[a/b]"]),
        (CONFIG_MAPS, {"data": {"..x": "x"}}, ["data[..x]"]),
        (CONFIG_MAPS, {"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, ["data.a"]),
        (CONFIG_MAPS, {"data": {"a": "x" * 1_048_577}}, [""]),
        (SECRETS, {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, ["data[tls.key]"]),
        (SECRETS, {"stringData": {"a b": "x"}}, ["data[a b]"]),
        (NODES, {"spec": {"taints": [{"key": "a", "effect": "Sometimes"}]}}, ["spec.taints[0].effect"]),
        (NODES, {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 2}}, ["spec.taints[1]"]),
        (NODES, {"spec": {"podCIDR": "10.244.1.0/33"}}, ["spec.podCIDR"]),
        (NODES, {"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "3"}}}, ["status.allocatable.cpu"]),
        (LEASES, {"spec": {"leaseDurationSeconds": 0}}, ["spec.leaseDurationSeconds"]),
        (EVENTS, {"involvedObject": {"namespace": "other"}}, ["involvedObject.namespace"]),
        (ENDPOINTS, {"subsets": [{}]}, ["subsets[0]"]),
        (
            ENDPOINTS,
            {"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0}]}]},
            ["subsets[0].addresses[0].ip", "subsets[0].ports[0].port"],
        ),
        (ENDPOINT_SLICES, {"addressType": "IPv4", "endpoints": [{"addresses": []}]}, ["endpoints[0].addresses"]),
        (ENDPOINT_SLICES, {"addressType": "Carrier", "endpoints": []}, ["addressType"]),
        (
            ENDPOINT_SLICES,
            {"addressType": "IPv4", "endpoints": [{"addresses": ["x"]}], "ports": [{"port": 0}]},
            ["endpoints[0].addresses[0]", "ports[0].port"],
        ),
    ],
)
def test_other_kinds(resource: Resource, body: Json, expected: list[str]) -> None:
    assert _paths(resource, body) == expected


def test_immutable_config_stays_and_so_do_secret_types() -> None:
    old = {"metadata": _meta(CONFIG_MAPS), "data": {"a": "1"}, "immutable": True}
    assert _paths(CONFIG_MAPS, {"data": {"a": "2"}}, old) == ["data", "immutable"]
    old_secret = {"metadata": _meta(SECRETS), "type": "Opaque"}
    assert _paths(SECRETS, {"type": "example.com/other"}, old_secret) == ["type"]


def test_finalizers_are_not_added_to_an_object_on_its_way_out() -> None:
    old = {"metadata": {**_meta(CONFIG_MAPS), "deletionTimestamp": "2025-01-01T00:00:00Z", "finalizers": ["a/b"]}}
    body = {"metadata": {**_meta(CONFIG_MAPS), "finalizers": ["a/b", "c/d"]}}
    assert _paths(CONFIG_MAPS, body, old) == ["metadata.finalizers"]


def test_messages_say_what_is_wrong_and_what_would_be_right() -> None:
    [error] = validate_object(NAMESPACES, {"metadata": {"name": "Prod"}})
    assert str(error).startswith(
        'metadata.name: Invalid value: "Prod": must be at most 63 characters: lower-case letters'
    )


SCALARS = st.none() | st.integers(-5, 70000) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["replicas", "minReadySeconds", "paused"]), SCALARS))
def test_what_fits_the_schema_never_makes_validation_fail(spec: Json) -> None:
    obj = {"metadata": _meta(DEPLOYMENTS), **_deployment(**spec)}
    if not registry().validate(DEPLOYMENTS, obj):
        validate_object(DEPLOYMENTS, apply_defaults(DEPLOYMENTS, obj))
