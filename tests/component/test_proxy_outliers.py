"""Ejection of endpoints by the data plane, over real sockets."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from mesh.backoff import Backoff
from mesh.resilience.outlier import OutlierConfig
from mesh.resilience.retry import RetryOn, RetryPolicy
from tests.component.plane_harness import (
    OK,
    client,
    cluster,
    forward,
    metric,
    origin,
    run,
    running,
    snapshot,
)

pytestmark = pytest.mark.component

ERROR = b"HTTP/1.1 503 Service Unavailable\r\nDate: d\r\nContent-Length: 3\r\n\r\nbad"
FAST = Backoff(base_s=0.001, cap_s=0.002)


def policy(on: RetryOn = RetryOn.SERVER_ERROR, **changes: Any) -> RetryPolicy:
    return replace(RetryPolicy(conditions=on, backoff=FAST, max_retries=2), **changes)


def test_failing_endpoint_is_ejected_and_returns_after_its_time() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=3, interval_s=0.01, base_ejection_s=5.0, max_ejection_percent=50)
        async with origin(lambda _: ERROR) as bad, origin() as good:
            config = snapshot([cluster("c", bad.port, good.port, outlier=outlier)], [forward("c", retry=policy())])
            async with running(config) as plane, client(plane) as user:
                while len(bad.requests) < 3:
                    assert (await user.ask()).status == 200
                for _ in range(20):
                    assert (await user.ask()).status == 200
                assert len(bad.requests) == 3
                state = plane.plane.clusters["c"]
                assert state.ejections_total == 1
                bad.answer = lambda _: OK
                state.sweep(time.monotonic() + 4.0)
                assert [host.port for host in state.available] == [good.port]
                state.sweep(time.monotonic() + 6.0)
                assert {host.port for host in state.available} == {bad.port, good.port}
                while len(bad.requests) == 3:
                    assert (await user.ask()).status == 200

    run(body())


def test_too_few_endpoints_left_means_all_are_used() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=1, max_ejection_percent=100)
        async with (
            origin(lambda _: ERROR) as one,
            origin(lambda _: ERROR) as two,
            running(snapshot([cluster("c", one.port, two.port, outlier=outlier)])) as plane,
            client(plane) as user,
        ):
            for _ in range(12):
                assert (await user.ask()).status == 503
            assert plane.plane.clusters["c"].is_panicking
            assert min(len(one.requests), len(two.requests)) > 1

    run(body())


def test_endpoint_with_the_worst_success_rate_is_ejected_at_the_interval() -> None:
    async def body() -> None:
        # Every third answer of one endpoint is bad: never enough in a row, but far below the others.
        turns = itertools.count()
        outlier = OutlierConfig(
            success_rate_volume=10, success_rate_min_hosts=3, success_rate_stdev_factor=1.0, max_ejection_percent=50
        )
        async with (
            origin(lambda _: ERROR if next(turns) % 3 == 0 else OK) as bad,
            origin() as one,
            origin() as two,
            running(snapshot([cluster("c", bad.port, one.port, two.port, outlier=outlier)])) as plane,
            client(plane) as user,
        ):
            state = plane.plane.clusters["c"]
            while min(len(bad.requests), len(one.requests), len(two.requests)) < 12:
                await user.ask()
            assert state.ejections_total == 0
            state.sweep(time.monotonic() + 10.0)
            assert sorted(host.port for host in state.available) == sorted([one.port, two.port])
            assert metric(plane, "outlier_detection_ejections_enforced_success_rate", "c") == 1
            assert metric(plane, "outlier_detection_ejections_detected_success_rate", "c") == 1
            assert metric(plane, "outlier_detection_ejections_active", "c") == 1
            asked = len(bad.requests)
            for _ in range(20):
                assert (await user.ask()).status == 200
            assert len(bad.requests) == asked

    run(body())


def test_split_failures_without_an_answer_eject_by_their_own_count() -> None:
    async def body() -> None:
        outlier = OutlierConfig(
            split_local_origin=True, consecutive_local_origin=2, consecutive_5xx=100, max_ejection_percent=50
        )
        retry = policy(RetryOn.RESET)
        async with origin(lambda _: None) as bad, origin() as good:
            config = snapshot([cluster("c", bad.port, good.port, outlier=outlier)], [forward("c", retry=retry)])
            async with running(config) as plane, client(plane) as user:
                while metric(plane, "outlier_detection_ejections_active", "c") == 0:
                    assert (await user.ask()).status == 200
                name = "outlier_detection_ejections_enforced_consecutive_local_origin_failure"
                assert metric(plane, name, "c") == 1
                assert len(bad.requests) == 2

    run(body())


def test_detector_that_is_not_enforced_only_counts() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=2, enforcing_consecutive_5xx=0)
        async with (
            origin(lambda _: ERROR) as bad,
            running(snapshot([cluster("c", bad.port, outlier=outlier)])) as plane,
            client(plane) as user,
        ):
            for _ in range(5):
                await user.ask()
            assert metric(plane, "outlier_detection_ejections_detected_consecutive_5xx", "c") == 2
            assert metric(plane, "outlier_detection_ejections_enforced_total", "c") == 0

    run(body())


def test_ejected_endpoint_takes_part_again_when_detection_is_configured_away() -> None:
    async def body() -> None:
        outlier = OutlierConfig(consecutive_5xx=1, max_ejection_percent=100)
        async with origin(lambda _: ERROR) as bad, origin() as good:
            with_it = cluster("c", bad.port, good.port, outlier=outlier)
            async with running(snapshot([with_it])) as plane, client(plane) as user:
                while plane.plane.clusters["c"].ejections_total == 0:
                    await user.ask()
                await plane.apply(snapshot([replace(with_it, outlier=None)]))
                assert len(plane.plane.clusters["c"].available) == 2
                assert metric(plane, "outlier_detection_ejections_enforced_total", "c") == 1

    run(body())
