"""What makes the data plane try again, how long it waits, and who is believed about it. Over real sockets."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.balance.endpoint import LbPolicy
from mesh.resilience.header_condition import HeaderCondition
from mesh.resilience.retry import RetryPolicy, parse_retry_on
from mesh.resilience.retry_after import RateLimitedBackoff, ResetFormat, ResetHeader
from sidecar.config import Direction, HttpFilter, Snapshot
from tests.component.plane_harness import (
    OK,
    client,
    cluster,
    forward,
    origin,
    run,
    running,
    snapshot,
    total,
)
from tests.loopback_port import free_port

pytestmark = pytest.mark.component

ERROR = b"HTTP/1.1 503 Service Unavailable\r\nDate: d\r\nContent-Length: 3\r\n\r\nbad"
FAST = Backoff(base_s=0.001, cap_s=0.002)


def policy(on: str = "5xx", **changes: Any) -> RetryPolicy:
    conditions, statuses = parse_retry_on(on)
    return replace(
        RetryPolicy(conditions=conditions, retriable_statuses=statuses, backoff=FAST, max_retries=2), **changes
    )


def response(status: int, *lines: str, body: str = "x") -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", "Date: d", f"Content-Length: {len(body)}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def first_then_ok(first: bytes) -> Any:
    """An origin's answers: `first` once, then OK."""
    answers = [first]
    return lambda _: answers.pop() if answers else OK


def inbound(config: Snapshot) -> Snapshot:
    return replace(config, listeners=tuple(replace(one, direction=Direction.INBOUND) for one in config.listeners))


def header_of(request: bytes, name: str) -> str | None:
    for line in request.decode().split("\r\n")[1:]:
        if line.lower().startswith(name + ":"):
            return line.partition(":")[2].strip()
    return None


@pytest.mark.parametrize(
    ("on", "answer", "tries"),
    [
        ("retriable-4xx", response(409), 2),
        ("retriable-4xx", response(404), 1),
        ("503", ERROR, 2),
        ("gateway-error", response(500), 1),
        ("envoy-ratelimited", response(429, "x-envoy-ratelimited: true"), 2),
        ("5xx", response(503, "x-envoy-ratelimited: true"), 1),
        ("5xx", response(503, "x-envoy-overloaded: true"), 1),
        ("retriable-headers", response(200, "X-Again: please"), 2),
        ("retriable-headers", response(200, "X-Again: never"), 1),
        ("unavailable", response(200, "grpc-status: 14"), 2),
        ("unavailable", response(200, "grpc-status: 5"), 1),
        ("internal,cancelled", response(200, "Grpc-Status: 13"), 2),
    ],
)
def test_conditions(on: str, answer: bytes, tries: int) -> None:
    async def body() -> None:
        conditions = (HeaderCondition(name="x-again", pattern="please"),)
        async with origin(first_then_ok(answer)) as up:
            config = snapshot([cluster("c", up.port)], [forward("c", retry=policy(on, retriable_headers=conditions))])
            async with running(config) as plane, client(plane) as user:
                found = await user.ask()
                assert len(up.requests) == tries
                assert found.body == (b"ok" if tries == 2 else b"x")
                # The same on the short way's caches: heads of responses are known by now.
                assert (await user.ask()).body == b"ok"
                if tries == 1:
                    up.answer = lambda _: answer
                    assert (await user.ask()).body == b"x"

    run(body())


def test_known_heads_with_a_retriable_header_are_still_retried() -> None:
    async def body() -> None:
        again = response(200, "grpc-status: 14")
        async with origin() as up:
            config = snapshot([cluster("c", up.port)], [forward("c", retry=policy("unavailable"))])
            async with running(config) as plane, client(plane) as user:
                for _ in range(3):
                    assert (await user.ask()).body == b"ok"
                    up.answer = first_then_ok(again)
                    assert (await user.ask()).body == b"ok"
                assert len(up.requests) == 9

    run(body())


def test_only_requests_with_the_wanted_header_are_repeated() -> None:
    async def body() -> None:
        conditions = (HeaderCondition(name="x-retry", pattern="yes"),)
        async with origin(lambda _: ERROR) as up:
            config = snapshot(
                [cluster("c", up.port)], [forward("c", retry=policy(retriable_request_headers=conditions))]
            )
            async with running(config) as plane, client(plane) as user:
                await user.ask("/", "X-Retry: no")
                assert len(up.requests) == 1
                await user.ask("/", "X-Retry: yes")
                assert len(up.requests) == 4

    run(body())


async def wait_for_retry(first: bytes, **changes: Any) -> float:
    """Seconds between the first attempt and the second."""
    times: list[float] = []
    answers = [first]

    def answer(_: bytes) -> bytes:
        times.append(time.monotonic())
        return answers.pop() if answers else OK

    async with origin(answer) as up:
        config = snapshot([cluster("c", up.port)], [forward("c", retry=policy("5xx,429", **changes))])
        async with running(config) as plane, client(plane) as user:
            assert (await user.ask()).status == 200
            assert len(times) == 2
            return times[1] - times[0]


def test_retry_after_is_waited_for_within_bounds() -> None:
    async def body() -> None:
        assert 1.0 <= await wait_for_retry(response(429, "Retry-After: 1")) < 2.0
        assert await wait_for_retry(response(503, "Retry-After: 100")) < 0.5
        assert await wait_for_retry(response(502, "Retry-After: 1")) < 0.5

    run(body())


def test_reset_headers_of_the_policy_are_waited_for() -> None:
    async def body() -> None:
        backoff = RateLimitedBackoff(
            headers=(ResetHeader(name="x-ratelimit-reset", format=ResetFormat.UNIX_TIMESTAMP),), max_interval_s=3.0
        )
        soon = int(time.time()) + 2
        waited = await wait_for_retry(response(500, f"X-RateLimit-Reset: {soon}"), rate_limited=backoff)
        assert 0.9 < waited < 3.5
        late = int(time.time()) + 60
        assert await wait_for_retry(response(500, f"X-RateLimit-Reset: {late}"), rate_limited=backoff) < 0.5

    run(body())


def test_wait_that_outlasts_the_routes_timeout_is_not_begun() -> None:
    async def body() -> None:
        async with origin(lambda _: response(503, "Retry-After: 3")) as up:
            config = snapshot([cluster("c", up.port)], [forward("c", retry=policy(), timeout_s=1.0)])
            async with running(config) as plane, client(plane) as user:
                began = time.monotonic()
                answer = await user.ask()
                assert (answer.status, answer.headers["retry-after"]) == (503, "3")
                assert time.monotonic() - began < 0.5
                assert len(up.requests) == 1

    run(body())


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


def test_silent_attempt_is_given_up_and_repeated_elsewhere() -> None:
    async def body() -> None:
        async with origin(script=_silent) as stuck, origin() as good:
            retry = policy(per_try_idle_timeout_s=0.05)
            config = snapshot([cluster("c", stuck.port, good.port)], [forward("c", retry=retry)])
            async with running(config) as plane, client(plane) as user:
                for _ in range(6):
                    assert (await user.ask()).status == 200
                assert plane.plane.clusters["c"].counts.try_idle_timeouts > 0

    run(body())


def test_attempt_that_falls_silent_in_its_response_is_cut() -> None:
    async def body() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await reader.read()

        async with origin(script=half) as up:
            config = snapshot(
                [cluster("c", up.port)], [forward("c", retry=policy(per_try_idle_timeout_s=0.05), timeout_s=None)]
            )
            async with running(config) as plane, client(plane) as user:
                user.get()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await user.response()
                assert total(plane, 200, "UT") == 1

    run(body())


def test_buffer_limit_of_a_route_decides_which_bodies_are_repeated() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as up:
            wide = replace(forward("c", retry=policy()), buffer_limit_bytes=300_000)
            for route, tries in ((wide, 3), (replace(wide, buffer_limit_bytes=10), 1)):
                up.requests.clear()
                async with running(snapshot([cluster("c", up.port)], [route])) as plane, client(plane) as user:
                    user.get("/", "Content-Length: 200000", method="PUT")
                    user.send(b"x" * 200_000)
                    assert (await user.response()).status == 503
                    assert len(up.requests) == tries
                    assert all(request.endswith(b"x" * 200_000) for request in up.requests)

    run(body())


# -- what requests say about it


def test_app_may_ask_for_retries_and_timeouts_at_outbound() -> None:
    async def body() -> None:
        async with (
            origin(lambda _: ERROR) as up,
            running(snapshot([cluster("c", up.port)])) as plane,
            client(plane) as user,
        ):
            await user.ask("/", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 3")
            assert len(up.requests) == 4
            assert all(b"x-envoy-retry-on" not in request for request in up.requests)
            assert all(b"x-envoy-max-retries" not in request for request in up.requests)
            up.requests.clear()
            await user.ask("/", "x-envoy-retry-on: nonsense,reset", "x-envoy-max-retries: 3")
            assert len(up.requests) == 1
            up.requests.clear()
            await user.ask("/", "x-envoy-max-retries: 3")  # nothing to retry on
            assert len(up.requests) == 1
        async with (
            origin(script=_silent) as stuck,
            running(snapshot([cluster("c", stuck.port)])) as plane,
            client(plane) as user,
        ):
            answer = await user.ask("/", "x-envoy-upstream-rq-timeout-ms: 50")
            assert (answer.status, total(plane, 504, "UT")) == (504, 1)
            answer = await user.ask(
                "/", "x-envoy-retry-on: gateway-error", "x-envoy-upstream-rq-per-try-timeout-ms: 30"
            )
            assert (answer.status, total(plane, 504, "UT,URX")) == (504, 1)

    run(body())


@pytest.mark.parametrize("place", ["inbound", "edge"])
def test_nobody_else_may(place: str) -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as up:
            http = HttpFilter(route_table="table", use_remote_address=place == "edge")
            config = snapshot([cluster("c", up.port)], http=http)
            config = inbound(config) if place == "inbound" else config
            async with running(config) as plane, client(plane) as user:
                await user.ask("/", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 3")
                assert len(up.requests) == 1
                assert b"x-envoy-retry-on" not in up.requests[0]

    run(body())


def retrying_inbound(*ports: int, **changes: Any) -> Snapshot:
    return inbound(
        snapshot([cluster("c", *ports)], [forward("c", retry=policy("5xx,reset,connect-failure"), **changes)])
    )


def test_inbound_leaves_retries_to_a_caller_that_retries() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as up, running(retrying_inbound(up.port)) as plane, client(plane) as user:
            await user.ask()
            assert len(up.requests) == 3
            for hint in ("x-envoy-attempt-count: 1", "x-envoy-expected-rq-timeout-ms: 900"):
                up.requests.clear()
                assert (await user.ask("/", hint)).status == 503
                assert len(up.requests) == 1
            assert total(plane, 503) == 2
            assert header_of(up.requests[0], "x-envoy-expected-rq-timeout-ms") == "900"

    run(body())


def test_inbound_still_repeats_what_never_reached_the_app() -> None:
    async def body() -> None:
        async with origin() as up:
            with_dead = retrying_inbound(free_port(), up.port)
            async with running(with_dead) as plane, client(plane) as user:
                for _ in range(8):
                    assert (await user.ask("/", "x-envoy-attempt-count: 1")).status == 200
                assert {header_of(one, "x-envoy-attempt-count") for one in up.requests} == {"1"}

    run(body())


def test_inbound_gives_up_when_its_caller_does_but_never_later() -> None:
    async def body() -> None:
        async with (
            origin(script=_silent) as up,
            running(retrying_inbound(up.port, timeout_s=0.2)) as plane,
            client(plane) as user,
        ):
            for hint, longest in (("50", 0.15), ("600000", 0.5), ("0", 0.5), ("soon", 0.5)):
                began = time.monotonic()
                answer = await user.ask("/", f"x-envoy-expected-rq-timeout-ms: {hint}")
                assert answer.status == 504
                assert time.monotonic() - began < longest

    run(body())


def test_each_attempt_is_told_how_long_it_has() -> None:
    async def body() -> None:
        backoff = Backoff(base_s=0.2, cap_s=0.2, jitter=0.0)
        async with origin(lambda _: ERROR) as up:
            retry = policy(max_retries=1, backoff=backoff)
            config = snapshot(
                [cluster("c", up.port)], [forward("c", retry=retry, timeout_s=2.0)], include_attempt_count=True
            )
            async with running(config) as plane, client(plane) as user:
                await user.ask("/", "x-envoy-expected-rq-timeout-ms: 7", "x-envoy-attempt-count: 9")
                told = [header_of(request, "x-envoy-expected-rq-timeout-ms") for request in up.requests]
                assert told[0] == "2000"
                assert told[1] is not None
                assert 1500 <= int(told[1]) <= 1800
                assert [header_of(request, "x-envoy-attempt-count") for request in up.requests] == ["1", "2"]

    run(body())


def test_two_hops_retry_once_not_twice() -> None:
    """The outbound proxy of a caller and the inbound proxy of the app, both with two retries: 3 attempts, not 9."""

    async def body() -> None:
        async with origin(lambda _: ERROR) as up, running(retrying_inbound(up.port)) as near_app:
            config = snapshot(
                [cluster("c", near_app.address("in")[1])], [forward("c", retry=policy())], include_attempt_count=True
            )
            async with running(config) as near_caller, client(near_caller) as user:
                assert (await user.ask()).status == 503
                assert len(up.requests) == 3

    run(body())


def test_response_says_how_many_attempts_it_took() -> None:
    async def body() -> None:
        async with origin(first_then_ok(ERROR)) as up:
            config = snapshot(
                [cluster("c", up.port)], [forward("c", retry=policy())], include_attempt_count_in_response=True
            )
            async with running(config) as plane, client(plane) as user:
                assert (await user.ask()).headers["x-envoy-attempt-count"] == "2"
                assert (await user.ask()).headers["x-envoy-attempt-count"] == "1"

    run(body())


def test_retries_avoid_hosts_with_the_labels_of_the_policy() -> None:
    async def body() -> None:
        async with origin(lambda _: ERROR) as bad, origin() as canary, origin() as stable:
            retry = policy(avoid_labels=(("stage", "canary"),))
            made = cluster("c", bad.port, canary.port, stable.port, lb_policy=LbPolicy.RANDOM)
            labelled = tuple(
                replace(one, labels=(("stage", "canary"),)) if one.port == canary.port else one
                for one in made.endpoints
            )
            changed = replace(made, endpoints=labelled)
            config = snapshot([changed], [forward("c", retry=retry)], include_attempt_count=True)
            async with running(config) as plane, client(plane) as user:
                while not (len(bad.requests) > 8 and canary.requests):
                    assert (await user.ask()).status == 200
                assert {header_of(request, "x-envoy-attempt-count") for request in canary.requests} == {"1"}
                second = [one for one in stable.requests if header_of(one, "x-envoy-attempt-count") == "2"]
                assert len(second) == len(bad.requests)

    run(body())
