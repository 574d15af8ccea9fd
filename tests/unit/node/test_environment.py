"""Environment variables of containers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.pod import Container, Pod
from mesh.api.resources import Json
from node.errors import ContainerConfigError
from node.runtime.environment import PodFields, Sources, build_environment, expand, needed_sources

pytestmark = pytest.mark.unit

POD = Pod.of(
    {
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u1",
            "labels": {"app": "web", "color": "blue"},
            "annotations": {"note": 'a "b"\nc'},
        },
        "spec": {"nodeName": "node-1", "serviceAccountName": "default"},
    }
)
FIELDS = PodFields(pod_ip="10.244.1.2", host_ip="172.30.0.11", capacity={"cpu": "2", "memory": "1Gi"})
SOURCES = Sources(
    config_maps={"c": {"one": "1", "not valid": "x"}},
    secrets={"s": {"pass": "hunter2"}},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("a$(A)b$(B)", "a1b2"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("100$", "100$"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_dollars_is_unchanged(text: str) -> None:
    assert expand(text, {"A": "1"}) == text


def build(*env: Json, env_from: tuple[Json, ...] = ()) -> dict[str, str]:
    container = Container.of(
        {
            "name": "app",
            "env": list(env),
            "envFrom": list(env_from),
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"memory": "32Mi"}},
        }
    )
    return build_environment(POD, container, FIELDS, SOURCES, {"PATH": "/bin"})


def of_field(path: str) -> Json:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u1"),
        ("metadata.labels['color']", "blue"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'app="web"\ncolor="blue"'),
        ("metadata.annotations", 'note="a \\"b\\"\\nc"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.244.1.2"),
        ("status.hostIP", "172.30.0.11"),
    ],
)
def test_fields_of_the_pod(path: str, expected: str) -> None:
    assert build(of_field(path))["X"] == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "32"),
        ({"resource": "requests.cpu"}, "0"),
        ({"resource": "limits.ephemeral-storage"}, "0"),
    ],
)
def test_resources_are_divided_and_rounded_up(reference: dict[str, str], expected: str) -> None:
    assert build({"name": "X", "valueFrom": {"resourceFieldRef": reference}})["X"] == expected


def test_later_variables_see_earlier_ones_and_the_image_s() -> None:
    values = build({"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(PATH)"}, {"name": "A", "value": "$(A)0"})
    assert values == {"PATH": "/bin", "A": "10", "B": "1/bin"}


def test_whole_objects_come_first_and_bad_names_are_left_out() -> None:
    sources: tuple[Json, ...] = ({"configMapRef": {"name": "c"}, "prefix": "C_"}, {"secretRef": {"name": "s"}})
    values = build({"name": "pass", "value": "own"}, env_from=sources)
    assert values == {"PATH": "/bin", "C_one": "1", "pass": "own"}


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (of_field("spec.secrets"), "unknown fieldPath"),
        ({"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}, 'configmap "none" not found'),
        ({"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, 'secret "s" has no key "k"'),
        ({"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "cpu"}}}, "unknown resource"),
        ({"name": "X", "valueFrom": {}}, "names no source"),
    ],
)
def test_what_is_missing_is_named(variable: Json, message: str) -> None:
    with pytest.raises(ContainerConfigError, match=message):
        build(variable)


def test_optional_sources_may_be_missing() -> None:
    variable: Json = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}
    source: Json = {"configMapRef": {"name": "none", "optional": True}}
    assert build(variable, env_from=(source,)) == {"PATH": "/bin"}


def test_needed_sources_are_found() -> None:
    container = Container.of(
        {
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "t"}}],
        }
    )
    assert needed_sources(container) == (frozenset({"c"}), frozenset({"s", "t"}))
