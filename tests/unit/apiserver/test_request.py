"""Paths and queries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.errors import ApiStatusError
from controlplane.apiserver.negotiation import Form, form_of
from controlplane.apiserver.request import ListOptions, Target, parse_bool, parse_target, verb_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target(group="", version="v1", plural="pods")),
        ("/api/v1/namespaces", Target(group="", version="v1", plural="namespaces")),
        ("/api/v1/namespaces/x", Target(group="", version="v1", plural="namespaces", name="x")),
        (
            "/api/v1/namespaces/x/finalize",
            Target(group="", version="v1", plural="namespaces", name="x", subresource="finalize"),
        ),
        ("/api/v1/namespaces/x/pods/", Target(group="", version="v1", plural="pods", namespace="x")),
        (
            "/api/v1/namespaces/x/pods/p:80/proxy/a/b",
            Target(group="", version="v1", plural="pods", namespace="x", name="p:80", subresource="proxy", rest="a/b"),
        ),
        (
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            Target(group="apps", version="v1", plural="deployments", namespace="x", name="d", subresource="scale"),
        ),
    ],
)
def test_where_paths_lead(path: str, target: Target) -> None:
    assert parse_target(path) == target


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/version", "/metrics"])
def test_paths_that_are_no_resources(path: str) -> None:
    assert parse_target(path) is None


@pytest.mark.parametrize("name", ["a%2Fb", "..", ".", "%00", "a%25b", "x" * 600])
def test_names_that_could_leave_their_place(name: str) -> None:
    with pytest.raises(ApiStatusError) as caught:
        parse_target(f"/api/v1/namespaces/default/pods/{name}")
    assert caught.value.code == 400


@given(st.text(max_size=80))
def test_any_path_is_a_place_nowhere_or_a_bad_request(path: str) -> None:
    found = _found(path)
    if isinstance(found, Target):
        assert "/" not in found.namespace + found.name + found.plural
    else:
        assert found in (None, 400)


def _found(path: str) -> Target | int | None:
    try:
        return parse_target(path)
    except ApiStatusError as exc:
        return exc.code


@pytest.mark.parametrize(("text", "value"), [("1", True), ("True", True), ("t", True), ("0", False), ("", False)])
def test_booleans_are_gos(text: str, value: bool) -> None:
    assert parse_bool("watch", text) is value


@pytest.mark.parametrize("query", [{"watch": "yes"}, {"limit": "-1"}, {"limit": "1e9"}, {"timeoutSeconds": "x"}])
def test_queries_that_make_no_sense(query: dict[str, str]) -> None:
    with pytest.raises(ApiStatusError):
        ListOptions.of(query)


def test_verbs() -> None:
    collection = Target(group="", version="v1", plural="pods")
    one = Target(group="", version="v1", plural="pods", namespace="x", name="p")
    assert verb_of("GET", collection, is_watch=True) == "watch"
    assert verb_of("DELETE", collection, is_watch=False) == "deletecollection"
    assert verb_of("GET", one, is_watch=False) == "get"
    assert verb_of("BREW", one, is_watch=False) == ""


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("", Form.OBJECT),
        ("application/json", Form.OBJECT),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form.TABLE),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Form.OBJECT),
        ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata,application/json", Form.OBJECT),
        ("application/json;as=PartialObjectMetadata;v=v1", Form.METADATA),
    ],
)
def test_forms(header: str, form: Form) -> None:
    assert form_of(header) is form
