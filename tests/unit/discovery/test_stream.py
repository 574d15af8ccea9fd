"""The protocol's rules, message by message."""

import pytest

from controlplane.discovery.resources import CDS, EDS, LDS, RDS, Resource, resource_of_bytes
from controlplane.discovery.snapshot import Tables
from controlplane.discovery.stream import Request, Response, StreamState

pytestmark = pytest.mark.unit


def table(type_url: str, **bodies: str) -> dict[str, Resource]:
    return {name: resource_of_bytes(type_url, name, body.encode()) for name, body in bodies.items()}


def tables(clusters: str = "c", endpoints: str = "e", routes: str = "r", **more: str) -> Tables:
    return {
        CDS: table(CDS, a=clusters, **more),
        EDS: table(EDS, a=endpoints, **more),
        LDS: table(LDS, in_="l"),
        RDS: table(RDS, r80=routes),
    }


def names(responses: list[Response]) -> list[tuple[str, list[str], list[str]]]:
    kinds = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}
    return [(kinds[r.type_url], sorted(x.name for x in r.resources), sorted(r.removed)) for r in responses]


class Client:
    """Answers everything that comes."""

    def __init__(self, *, is_delta: bool = True) -> None:
        self.state = StreamState(is_delta=is_delta)

    def ack(self, response: Response, error: str = "", sotw_names: tuple[str, ...] = ()) -> bool:
        return self.state.on_request(
            Request(
                type_url=response.type_url,
                nonce=response.nonce,
                error=error,
                names=sotw_names,
                version=response.version,
            )
        )

    def ask(self, type_url: str, *wanted: str) -> None:
        if self.state.is_delta:
            self.state.on_request(Request(type_url=type_url, subscribe=wanted))
        else:
            self.state.on_request(Request(type_url=type_url, names=wanted))

    def push(self, shown: Tables) -> list[Response]:
        self.state.show(shown)
        return self.state.next_responses()

    def settle(self, shown: Tables) -> None:
        self.state.show(shown)
        while responses := self.state.next_responses():
            for response in responses:
                wanted = tuple(self.state.types[response.type_url].names)
                self.ack(response, sotw_names=wanted)

    def subscribed(self, shown: Tables) -> "Client":
        self.ask(CDS)
        self.ask(LDS)
        self.ask(EDS, "a")
        self.ask(RDS, "r80")
        self.settle(shown)
        assert self.state.is_settled
        return self


@pytest.fixture(params=[True, False], ids=["delta", "sotw"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(is_delta=request.param)


def test_first_answers_come_in_the_order_of_dependencies(client: Client) -> None:
    client.state.show(tables())
    for type_url, wanted in ((RDS, ("r80",)), (LDS, ()), (EDS, ("a",)), (CDS, ())):
        client.ask(type_url, *wanted)
    assert [kind for kind, _, _ in names(client.state.next_responses())] == ["CDS", "EDS", "LDS", "RDS"]
    assert client.state.next_responses() == []


def test_one_response_in_flight_and_the_latest_wins(client: Client) -> None:
    client.subscribed(tables())
    (first,) = client.push(tables(endpoints="e2"))
    assert client.push(tables(endpoints="e3")) == []
    assert client.push(tables(endpoints="e4")) == []
    client.ack(first, sotw_names=("a",))
    (second,) = client.state.next_responses()
    assert second.resources[0].body == b"e4"
    assert not client.state.is_settled
    client.ack(second, sotw_names=("a",))
    assert client.state.is_settled


def test_endpoints_are_sent_again_with_their_cluster(client: Client) -> None:
    client.subscribed(tables())
    assert names(client.push(tables(clusters="c2"))) == [("CDS", ["a"], []), ("EDS", ["a"], [])]


def test_routes_wait_for_the_clusters_they_may_need(client: Client) -> None:
    client.subscribed(tables())
    clusters = client.push(tables(routes="r2", b="new"))
    assert [kind for kind, _, _ in names(clusters)] == ["CDS"]
    client.ack(clusters[0])
    client.ask(EDS, "a", "b")
    sent = client.state.next_responses()
    (endpoints,) = [r for r in sent if r.type_url == EDS]
    assert "RDS" not in [kind for kind, _, _ in names(sent)]
    client.ack(endpoints, sotw_names=("a", "b"))
    assert names(client.state.next_responses()) == [("RDS", ["r80"], [])]


def test_routes_go_anyway_in_a_hurry(client: Client) -> None:
    client.subscribed(tables())
    client.push(tables(routes="r2", clusters="c2"))
    assert names(client.state.next_responses(hurry=True)) == [("RDS", ["r80"], [])]


def test_clusters_go_after_the_routes_that_named_them() -> None:
    client = Client().subscribed(tables(b="old"))
    (routes,) = client.push(tables(routes="r2"))
    assert routes.type_url == RDS
    client.ack(routes)
    assert names(client.state.next_responses()) == [("CDS", [], ["b"])]


def test_state_of_the_world_drops_a_cluster_by_leaving_it_out() -> None:
    client = Client(is_delta=False).subscribed(tables(b="old"))
    (routes,) = client.push(tables(routes="r2"))
    client.ack(routes, sotw_names=("r80",))
    assert names(client.state.next_responses())[0][:2] == ("CDS", ["a"])


def test_clusters_stay_while_the_routes_are_refused(client: Client) -> None:
    client.subscribed(tables(b="old"))
    (routes,) = client.push(tables(routes="bad"))
    assert client.ack(routes, error="no good", sotw_names=("r80",))
    assert client.state.next_responses() == []
    assert client.state.is_settled
    assert client.state.errors == {RDS: "no good"}
    (again,) = client.push(tables(routes="good", b="old"))
    client.ack(again, sotw_names=("r80",))
    assert client.state.errors == {}


def test_what_was_refused_is_sent_again_only_when_it_changes(client: Client) -> None:
    client.subscribed(tables())
    (bad,) = client.push(tables(endpoints="bad"))
    client.ack(bad, error="bad", sotw_names=("a",))
    assert client.push(tables(endpoints="bad")) == []
    assert names(client.push(tables(endpoints="good"))) == [("EDS", ["a"], [])]


def test_reconnect_with_known_versions_resends_nothing() -> None:
    shown = tables()
    state = StreamState(is_delta=True)
    state.show(shown)
    for type_url in (CDS, LDS):
        state.on_request(Request(type_url=type_url, known={n: r.version for n, r in shown[type_url].items()}))
    state.on_request(Request(type_url=EDS, subscribe=("a",), known={"a": shown[EDS]["a"].version}))
    state.on_request(Request(type_url=RDS, subscribe=("r80",), known={"r80": "old"}))
    assert names(state.next_responses()) == [("RDS", ["r80"], [])]
    assert state.types[CDS].sent_version == state.types[CDS].acked_version != ""


def test_reconnect_drops_what_is_gone() -> None:
    shown = tables()
    state = StreamState(is_delta=True)
    state.show(shown)
    state.on_request(Request(type_url=CDS, known={"a": shown[CDS]["a"].version, "gone": "x"}))
    assert names(state.next_responses()) == [("CDS", [], ["gone"])]


def test_state_of_the_world_reconnect_with_the_same_version_resends_nothing() -> None:
    client = Client(is_delta=False).subscribed(tables())
    versions = {type_url: state.sent_version for type_url, state in client.state.types.items()}
    again = StreamState(is_delta=False)
    again.show(tables())
    wanted = {CDS: (), LDS: (), EDS: ("a",), RDS: ("r80",)}
    for type_url, version in versions.items():
        again.on_request(Request(type_url=type_url, names=wanted[type_url], version=version, nonce="from before"))
    assert again.next_responses() == []
    again.show(tables(endpoints="e2"))
    assert names(again.next_responses()) == [("EDS", ["a"], [])]


def test_missing_names_are_answered_as_removed() -> None:
    client = Client().subscribed(tables())
    client.ask(EDS, "nobody")
    assert names(client.state.next_responses()) == [("EDS", [], ["nobody"])]
    assert names(client.push({**tables(), EDS: table(EDS, a="e", nobody="n")})) == []  # the answer is in flight


def test_unsubscribed_names_are_not_sent() -> None:
    client = Client().subscribed(tables())
    client.state.on_request(Request(type_url=EDS, unsubscribe=("a",)))
    assert client.push(tables(endpoints="e2")) == []


def test_stale_answers_of_state_of_the_world_are_ignored() -> None:
    client = Client(is_delta=False).subscribed(tables())
    (sent,) = client.push(tables(endpoints="e2"))
    assert not client.state.on_request(Request(type_url=EDS, nonce="old", names=("a", "b")))
    assert client.state.types[EDS].names == {"a"}
    assert client.ack(sent, sotw_names=("a",))


def test_an_empty_list_after_names_is_no_wildcard() -> None:
    state = StreamState(is_delta=False)
    state.show(tables())
    state.on_request(Request(type_url=CDS, names=("a",)))
    (sent,) = state.next_responses()
    state.on_request(Request(type_url=CDS, nonce=sent.nonce, names=()))
    state.show(tables(clusters="c2"))
    assert state.next_responses() == []


def test_an_empty_wildcard_is_answered_once(client: Client) -> None:
    client.state.show({**tables(), LDS: {}})
    client.ask(LDS)
    (sent,) = client.state.next_responses()
    assert (sent.type_url, sent.resources) == (LDS, ())
    client.ack(sent)
    assert client.state.next_responses() == []


def test_newly_asked_names_do_not_wait_for_an_acknowledgement() -> None:
    client = Client().subscribed(tables(b="new"))
    (first,) = client.push(tables(endpoints="e2", b="new"))
    client.ask(EDS, "b")
    (second,) = client.state.next_responses()
    assert [resource.name for resource in second.resources] == ["b"]
    client.ack(first)
    assert not client.state.is_settled
    client.ack(second)
    assert client.state.is_settled


def test_gone_endpoints_are_no_message_in_the_state_of_the_world() -> None:
    client = Client(is_delta=False).subscribed(tables())
    sent = client.push({**tables(), CDS: {}, EDS: {}})
    assert [kind for kind, _, _ in names(sent)] == ["CDS"]


def test_types_nobody_serves_are_ignored() -> None:
    state = StreamState(is_delta=True)
    assert not state.on_request(Request(type_url="type.googleapis.com/envoy.service.runtime.v3.Runtime"))
    assert state.next_responses() == []
