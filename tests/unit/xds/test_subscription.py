"""Delta subscription state: what goes out, and when."""

import pytest

from mesh.xds.subscription import Request, Subscription

pytestmark = pytest.mark.unit


def test_wildcard_starts_with_an_empty_list_and_what_it_holds() -> None:
    clusters = Subscription("C", is_wildcard=True)
    assert clusters.start() == Request(type_url="C")
    clusters.received("n1")
    clusters.hold("a", "1")
    clusters.hold("b", "1")
    clusters.drop("b")
    assert clusters.answer("n1") == Request(type_url="C", nonce="n1")
    assert clusters.start() == Request(type_url="C", initial_versions={"a": "1"})


def test_names_are_asked_for_by_difference() -> None:
    endpoints = Subscription("E", is_wildcard=False)
    assert endpoints.start() is None  # nothing to ask for yet
    assert endpoints.want(["b", "a"]) == Request(type_url="E", subscribe=("a", "b"))
    assert endpoints.want(["a", "b"]) is None
    assert endpoints.want(["b", "c"]) == Request(type_url="E", subscribe=("c",), unsubscribe=("a",))


def test_names_no_longer_wanted_are_not_offered_again() -> None:
    endpoints = Subscription("E", is_wildcard=False)
    endpoints.want(["a", "b"])
    endpoints.received("n")
    endpoints.hold("a", "7")
    endpoints.hold("b", "7")
    endpoints.hold("stranger", "7")
    endpoints.want(["b"])
    assert endpoints.start() == Request(type_url="E", subscribe=("b",), initial_versions={"b": "7"})


def test_each_nonce_is_answered_once() -> None:
    one = Subscription("R", is_wildcard=True)
    one.start()
    one.received("n1")
    one.received("n2")
    assert one.unanswered == ("n1", "n2")
    assert one.answer("n2", "bad") == Request(type_url="R", nonce="n2", error="bad")
    assert one.answer("n2") is None
    assert one.answer("n1") == Request(type_url="R", nonce="n1")


def test_nonces_end_with_their_stream() -> None:
    one = Subscription("R", is_wildcard=True)
    one.start()
    one.received("n1")
    one.start()
    assert one.answer("n1") is None


def test_undone_resources_are_asked_for_again() -> None:
    one = Subscription("R", is_wildcard=True)
    one.start()
    one.hold("a", "2")
    one.forget_versions()
    assert one.start() == Request(type_url="R")
