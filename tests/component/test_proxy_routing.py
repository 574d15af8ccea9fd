"""Where requests go and what is rewritten, over real sockets: hashes, sessions, stable splits, hosts and paths."""

from collections import Counter
from typing import Any

import pytest

from mesh.balance.endpoint import LbPolicy
from mesh.routing.filters import FilterKind, FilterSettings
from mesh.routing.hashing import HashPolicy, HashSource
from mesh.routing.session import SessionPolicy, cookie_value
from mesh.routing.table import (
    DirectResponse,
    Forward,
    PathKind,
    PathMatch,
    Redirect,
    RegexRewrite,
    Route,
    RouteMatch,
    WeightedCluster,
)
from sidecar.config import HttpFilter
from sidecar.filters.counts import FilterCount
from tests.component.plane_harness import Origin, client, cluster, origin, run, running, snapshot

pytestmark = pytest.mark.component


def named(name: str) -> Any:
    """An origin that says its name."""
    text = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name.encode())
    return origin(lambda _: text)


def hashed(action_fields: dict[str, Any], *ports: int) -> Any:
    action = Forward(clusters=(WeightedCluster(name="c"),), **action_fields)
    return snapshot([cluster("c", *ports, lb_policy=LbPolicy.RING_HASH)], [Route(name="r", action=action)])


@pytest.mark.parametrize(
    ("policy", "ask"),
    [
        (HashPolicy(source=HashSource.HEADER, name="x-user"), lambda i: ("/", f"X-User: u{i}")),
        (HashPolicy(source=HashSource.COOKIE, name="u"), lambda i: ("/", f"Cookie: a=b; u=u{i}")),
        (HashPolicy(source=HashSource.QUERY, name="u"), lambda i: (f"/?u=u{i}",)),
    ],
)
def test_equal_keys_go_to_one_endpoint(policy: HashPolicy, ask: Any) -> None:
    async def body() -> None:
        async with named("a") as one, named("b") as two, named("c") as three:
            config = hashed({"hash_policies": (policy,)}, one.port, two.port, three.port)
            async with running(config) as plane, client(plane) as user:
                homes: dict[int, set[bytes]] = {}
                for _ in range(3):
                    for i in range(20):
                        homes.setdefault(i, set()).add((await user.ask(*ask(i))).body)
                assert all(len(home) == 1 for home in homes.values())
                assert len(set().union(*homes.values())) > 1

    run(body())


def test_one_address_stays_with_one_endpoint() -> None:
    async def body() -> None:
        async with named("a") as one, named("b") as two:
            config = hashed({"hash_policies": (HashPolicy(source=HashSource.SOURCE_IP),)}, one.port, two.port)
            async with running(config) as plane:
                found = set()
                for _ in range(8):
                    async with client(plane) as user:
                        found.add((await user.ask("/")).body)
                assert len(found) == 1

    run(body())


def test_terminal_policy_hides_the_later_ones() -> None:
    async def body() -> None:
        policies = (
            HashPolicy(source=HashSource.HEADER, name="x-user", terminal=True),
            HashPolicy(source=HashSource.QUERY, name="q"),
        )
        async with named("a") as one, named("b") as two, named("c") as three:
            config = hashed({"hash_policies": policies}, one.port, two.port, three.port)
            async with running(config) as plane, client(plane) as user:
                assert len({(await user.ask(f"/?q={i}", "X-User: u")).body for i in range(20)}) == 1
                assert len({(await user.ask(f"/?q={i}")).body for i in range(20)}) > 1

    run(body())


def test_hash_cookie_is_made_once_and_leads_back() -> None:
    async def body() -> None:
        policy = HashPolicy(source=HashSource.COOKIE, name="home", ttl_s=60, path="/")
        async with named("a") as one, named("b") as two:
            config = hashed({"hash_policies": (policy,)}, one.port, two.port)
            async with running(config) as plane:
                for _ in range(6):
                    async with client(plane) as user:
                        first = await user.ask("/")
                        made = first.headers["set-cookie"]
                        assert made.endswith("; Max-Age=60; Path=/; HttpOnly")
                        cookie = made.partition(";")[0].replace('"', "")
                        second = await user.ask("/", f"Cookie: {cookie}")
                        assert second.body == first.body
                        assert "set-cookie" not in second.headers

    run(body())


def test_cluster_without_hashing_makes_no_cookie() -> None:
    """Source: Envoy makes it when the balancer asks for a hash."""

    async def body() -> None:
        policy = HashPolicy(source=HashSource.COOKIE, name="home", ttl_s=60)
        action = Forward(clusters=(WeightedCluster(name="c"),), hash_policies=(policy,))
        async with origin() as up:
            config = snapshot([cluster("c", up.port)], [Route(name="r", action=action)])
            async with running(config) as plane, client(plane) as user:
                assert "set-cookie" not in (await user.ask("/")).headers

    run(body())


def split(one: Origin, two: Origin, **fields: Any) -> Any:
    action = Forward(
        clusters=(WeightedCluster(name="one", weight=70), WeightedCluster(name="two", weight=30)), **fields
    )
    return snapshot([cluster("one", one.port), cluster("two", two.port)], [Route(name="r", action=action)])


def test_split_by_hash_keeps_a_user_on_a_branch_and_the_shares() -> None:
    async def body() -> None:
        policy = HashPolicy(source=HashSource.COOKIE, name="u", ttl_s=0)
        async with (
            named("1") as one,
            named("2") as two,
            running(split(one, two, hash_policies=(policy,), split_by_hash=True)) as plane,
            client(plane) as user,
        ):
            counts: Counter[bytes] = Counter()
            for i in range(300):
                first = (await user.ask("/", f"Cookie: u={i}")).body
                counts[first] += 1
                if i < 20:
                    assert (await user.ask("/", f"Cookie: u={i}")).body == first
            assert 0.2 < counts[b"2"] / 300 < 0.4
            made = (await user.ask("/")).headers["set-cookie"].partition(";")[0].replace('"', "")
            assert len({(await user.ask("/", f"Cookie: {made}")).body for _ in range(10)}) == 1

    run(body())


def test_split_by_header_takes_its_number_modulo_the_weights() -> None:
    async def body() -> None:
        async with (
            named("1") as one,
            named("2") as two,
            running(split(one, two, split_header="x-draw")) as plane,
            client(plane) as user,
        ):
            plane.plane.rng.seed(1)
            for number, want in ((0, b"1"), (69, b"1"), (70, b"2"), (99, b"2"), (100, b"1"), (2**64 - 1, b"1")):
                assert (await user.ask("/", f"X-Draw: {number}")).body == want
            for nonsense in ("", "x", "-1"):
                found = {(await user.ask("/", f"X-Draw: {nonsense}")).body for _ in range(40)}
                assert found == {b"1", b"2"}

    run(body())


def session(policy: SessionPolicy, *ports: int) -> Any:
    http = HttpFilter(
        route_table="table", filters=(FilterKind.STATEFUL_SESSION,), settings=FilterSettings(session=policy)
    )
    return snapshot([cluster("c", *ports, lb_policy=LbPolicy.ROUND_ROBIN)], http=http)


def test_session_cookie_leads_back_to_its_endpoint() -> None:
    async def body() -> None:
        async with named("a") as one, named("b") as two, named("c") as three:
            ports = {one.port: b"a", two.port: b"b", three.port: b"c"}
            async with (
                running(session(SessionPolicy(cookie="home", ttl_s=9, path="/"), *ports)) as plane,
                client(plane) as user,
            ):
                first = await user.ask("/")
                made = first.headers["set-cookie"]
                assert made.endswith("; Max-Age=9; Path=/; HttpOnly")
                cookie = made.partition(";")[0]
                for _ in range(6):
                    answer = await user.ask("/", f"Cookie: {cookie}")
                    assert answer.body == first.body
                    assert "set-cookie" not in answer.headers
                assert plane.plane.stats.filters.get(FilterCount.SESSION_KEPT, "c") == 6
                # An endpoint that is not there (any more) is replaced, and the client is told.
                gone = cookie_value(("127.0.0.9", 1), 0).decode()
                assert "set-cookie" in (await user.ask("/", f"Cookie: home={gone}")).headers
                expired = cookie_value(("127.0.0.1", one.port), 1).decode()
                assert "set-cookie" in (await user.ask("/", f"Cookie: home={expired}")).headers

    run(body())


def test_session_header_leads_back_to_its_endpoint() -> None:
    async def body() -> None:
        async with (
            named("a") as one,
            named("b") as two,
            running(session(SessionPolicy(header="x-home"), one.port, two.port)) as plane,
            client(plane) as user,
        ):
            first = await user.ask("/")
            for _ in range(4):
                answer = await user.ask("/", f"X-Home: {first.headers['x-home']}")
                assert answer.body == first.body
                assert "x-home" not in answer.headers

    run(body())


def test_session_is_told_to_websockets_too() -> None:
    async def body() -> None:
        switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        async with (
            origin(lambda _: switched) as up,
            running(session(SessionPolicy(cookie="home"), up.port)) as plane,
            client(plane) as user,
        ):
            answer = await user.ask("/", "Connection: upgrade", "Upgrade: websocket")
            assert answer.status == 101
            assert answer.headers["set-cookie"].startswith('home="')

    run(body())


REWRITES = [
    ({"prefix_rewrite": "/v2"}, PathMatch(value="/api"), "/api/x?q", b"GET /v2/x?q HTTP/1.1", b"a.example"),
    # DEVIATION: Envoy sends //x.
    ({"prefix_rewrite": "/"}, PathMatch(kind=PathKind.SEGMENT_PREFIX, value="/api"), "/api/x", b"GET /x HTTP/1.1",
     b"a.example"),
    # DEVIATION: Envoy sends `xfoo`.
    ({"prefix_rewrite": "x"}, PathMatch(value="/api"), "/apifoo", b"GET /xfoo HTTP/1.1", b"a.example"),
    ({"regex_rewrite": RegexRewrite(pattern="[0-9]", substitution="<\\0>")}, PathMatch(), "/re/12?3",
     b"GET /re/<1><2>?3 HTTP/1.1", b"a.example"),
    ({"host_rewrite": "b"}, PathMatch(), "/", b"GET / HTTP/1.1", b"b"),
    ({"host_rewrite_header": "x-h"}, PathMatch(), "/", b"GET / HTTP/1.1", b"other"),
    ({"host_rewrite_regex": RegexRewrite(pattern="^/(.*)$", substitution="\\1.x")}, PathMatch(), "/n?q",
     b"GET /n?q HTTP/1.1", b"n.x"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "path", "target", "line", "host"), REWRITES)
def test_rewrites_reach_the_upstream(
    fields: dict[str, Any], path: PathMatch, target: str, line: bytes, host: bytes
) -> None:
    async def body() -> None:
        action = Forward(clusters=(WeightedCluster(name="c"),), append_forwarded_host=True, **fields)
        async with origin() as up:
            route = Route(name="r", match=RouteMatch(path=path), action=action)
            async with running(snapshot([cluster("c", up.port)], [route])) as plane, client(plane) as user:
                evil = ("X-H: other", "X-Envoy-Original-Path: /evil", "X-Forwarded-Host: before")
                await user.ask(target, *evil)
                lines = up.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
                assert lines[0] == line
                assert b"host: " + host in lines
                if line.split(b" ")[1] != target.encode():
                    assert [one for one in lines if b"original-path" in one.lower()] == [
                        b"x-envoy-original-path: " + target.encode()
                    ]
                if host != b"a.example":
                    assert b"x-envoy-original-host: a.example" in lines
                    assert b"x-forwarded-host: before,a.example" in lines

    run(body())


def test_branch_may_have_a_host_of_its_own() -> None:
    async def body() -> None:
        async with origin() as up:
            branches = (WeightedCluster(name="c", host_rewrite="x"), WeightedCluster(name="c"))
            action = Forward(clusters=branches, host_rewrite="y", split_header="x-draw")
            config = snapshot([cluster("c", up.port)], [Route(name="r", action=action)])
            async with running(config) as plane, client(plane) as user:
                await user.ask("/", "X-Draw: 0")
                await user.ask("/", "X-Draw: 1")
                assert [b"host: x\r\n" in up.requests[0], b"host: y\r\n" in up.requests[1]] == [True, True]

    run(body())


def test_redirect_knows_the_clients_scheme() -> None:
    async def body() -> None:
        async with (
            running(snapshot([], [Route(name="r", action=Redirect(path="/new"))])) as plane,
            client(plane) as user,
        ):
            assert (await user.ask("/")).headers["location"] == "http://a.example/new"
            assert (await user.ask("/", "X-Forwarded-Proto: https")).headers["location"] == "https://a.example/new"

    run(body())


def test_missing_cluster_is_answered_as_the_route_says() -> None:
    async def body() -> None:
        action = Forward(clusters=(WeightedCluster(name="gone"),), missing_cluster_status=404)
        async with running(snapshot([], [Route(name="r", action=action)])) as plane, client(plane) as user:
            assert (await user.ask("/")).status == 404

    run(body())


@pytest.mark.parametrize(("upgrades", "status"), [((), 101), ((("websocket", False),), 200), ((("other", True),), 101)])
def test_route_may_forbid_upgrades(upgrades: tuple[tuple[str, bool], ...], status: int) -> None:
    async def body() -> None:
        def answer(request: bytes) -> bytes:
            if b"upgrade: websocket" in request.lower():
                return b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

        action = Forward(clusters=(WeightedCluster(name="c"),), upgrades=upgrades)
        async with origin(answer) as up:
            config = snapshot([cluster("c", up.port)], [Route(name="r", action=action)])
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask("/", "Connection: upgrade", "Upgrade: websocket")).status == status

    run(body())


def test_server_header_may_be_left_to_the_upstream() -> None:
    async def body() -> None:
        async with origin() as up:
            http = HttpFilter(route_table="table", adds_server=False)
            async with running(snapshot([cluster("c", up.port)], http=http)) as plane, client(plane) as user:
                for path in ("/", "/", "/other"):
                    assert "server" not in (await user.ask(path)).headers

    run(body())


def test_ten_thousand_routes_are_served_like_one() -> None:
    async def body() -> None:
        routes = [
            Route(
                name=f"r{i}",
                match=RouteMatch(path=PathMatch(kind=PathKind.EXACT, value=f"/svc-{i}")),
                action=DirectResponse(status=200, body=b"%d" % i),
            )
            for i in range(10_000)
        ]
        async with running(snapshot([], routes)) as plane, client(plane) as user:
            for i in (0, 5000, 9999):
                assert (await user.ask(f"/svc-{i}")).body == b"%d" % i
            assert (await user.ask("/none")).status == 404

    run(body())
