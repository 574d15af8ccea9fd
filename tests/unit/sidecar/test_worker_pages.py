"""Merging the pages of several workers."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.telemetry.exposition import Exposition, label_text
from sidecar.workers.merge import MergedMetrics, merge, parse_page, render_page
from sidecar.workers.rows import merge_documents, merge_rows

pytestmark = pytest.mark.unit


def page(requests: int, active: int = 0, *, healthy: int = 3, buckets: tuple[int, ...] = (0, 0, 0)) -> bytes:
    made = Exposition()
    made.family("requests_total", "counter", "Requests.")
    made.sample("requests_total", 'code="200"', requests)
    made.family("active", "gauge", "Now.")
    made.sample("active", "", active)
    made.family("envoy_cluster_membership_healthy", "gauge", "In use.")
    made.sample("envoy_cluster_membership_healthy", 'envoy_cluster_name="a b"', healthy)
    made.family("size_bytes", "histogram", "Sizes.")
    made.histogram("size_bytes", 'code="200"', (1.0, 10.0), buckets, 2.5 * sum(buckets))
    return made.render()


def sample(merged: dict[str, Any], family: str, series: str) -> float:
    return float(merged[family].samples[series])


def test_counters_gauges_and_histograms_are_summed() -> None:
    merged = MergedMetrics().page({0: page(3, 1, buckets=(1, 2, 0)), 1: page(4, 2, buckets=(0, 1, 5))})
    assert sample(merged, "requests_total", 'requests_total{code="200"}') == 7
    assert sample(merged, "active", "active") == 3
    buckets = [sample(merged, "size_bytes", f'size_bytes_bucket{{code="200",le="{le}"}}') for le in ("1", "10", "+Inf")]
    assert buckets == [1, 4, 9]
    assert sample(merged, "size_bytes", 'size_bytes_count{code="200"}') == 9
    assert sample(merged, "size_bytes", 'size_bytes_sum{code="200"}') == 22.5


def test_gauge_of_one_and_the_same_thing_is_not_summed() -> None:
    merged = MergedMetrics().page({0: page(0, healthy=3), 1: page(0, healthy=2)})
    series = 'envoy_cluster_membership_healthy{envoy_cluster_name="a b"}'
    assert sample(merged, "envoy_cluster_membership_healthy", series) == 2


def test_silent_worker_keeps_its_counters_and_loses_its_gauges() -> None:
    metrics = MergedMetrics()
    metrics.page({0: page(3, 1), 1: page(4, 2)})
    merged = metrics.page({0: page(5, 1), 1: None})
    assert sample(merged, "requests_total", 'requests_total{code="200"}') == 9
    assert sample(merged, "active", "active") == 1


def test_what_an_ended_worker_counted_stays() -> None:
    metrics = MergedMetrics()
    metrics.page({0: page(3, 1), 1: page(4, 2)})
    metrics.on_ended(1)
    metrics.on_ended(1)  # its successor ended before it was ever asked
    merged = metrics.page({0: page(3, 1), 1: page(1, 1)})
    assert sample(merged, "requests_total", 'requests_total{code="200"}') == 8
    assert sample(merged, "active", "active") == 2


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 7, None])), max_size=6), min_size=1))
def test_sums_never_fall(scrapes: list[list[tuple[str, int | None]]]) -> None:
    """Whatever workers do: answer with more than before, be silent, end and begin at 0."""
    metrics, counted, last = MergedMetrics(), {"a": 0, "b": 0, "c": 0}, 0.0
    for events in scrapes:
        answers: dict[int, bytes | None] = {}
        for name, event in events:
            index = ord(name)
            if event is None:
                answers[index] = None
            elif event == 0:
                metrics.on_ended(index)
                answers.pop(index, None)
                counted[name] = 0
            else:
                counted[name] += event
                answers[index] = page(counted[name])
        merged = metrics.page({**dict.fromkeys(map(ord, "abc")), **answers})
        family = merged.get("requests_total")
        now = family.samples['requests_total{code="200"}'] if family is not None else 0
        assert now >= last
        last = now


def test_merged_page_reads_back_the_same() -> None:
    tricky = label_text({"path": 'a "b" \\ c', "other": "x y"})
    made = Exposition()
    made.family("odd_total", "counter", "A \\ b.")
    made.sample("odd_total", tricky, 3)
    made.family("seconds_total", "counter", "Time.")
    made.sample("seconds_total", "", 0.25)
    text = made.render()
    assert render_page(merge([parse_page(text.decode())])) == text


def row(name: str, active: int, health: str = "healthy") -> dict[str, Any]:
    return {"cluster": name, "weight": 1, "health": health, "active_requests": active}


def test_equal_rows_become_one_and_counts_are_summed() -> None:
    merged = merge_rows([[row("a", 1), row("b", 0)], [row("a", 2)], [row("c", 5)]])
    assert merged == [row("a", 3), row("b", 0), row("c", 5)]


def test_rows_inside_rows_are_merged_too() -> None:
    merged = merge_rows([[{"name": "c", "hosts": [row("a", 1)]}], [{"name": "c", "hosts": [row("a", 2), row("b", 1)]}]])
    assert merged == [{"name": "c", "hosts": [row("a", 3), row("b", 1)]}]


def test_different_views_are_told_apart() -> None:
    merged = merge_rows([[row("a", 0)], [row("a", 0, "ejected")], [row("a", 0)]])
    assert merged[0]["health"] == "ejected (1 of 3 workers), healthy (2 of 3 workers)"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ({0: [row("a", 1)], 1: [row("a", 1)]}, [row("a", 2)]),
        (
            {0: {"version": "7", "rows": [row("a", 1)]}, 1: {"version": "7", "rows": [row("a", 1)]}},
            {"version": "7", "rows": [row("a", 2)]},
        ),
        ({0: {"version": "7"}, 1: {"version": "8"}}, {"version": {"workers": {"0": "7", "1": "8"}}}),
        ({0: {"a": 1}, 1: {"b": 1}}, {"workers": {"0": {"a": 1}, "1": {"b": 1}}}),
        ({}, []),
    ],
)
def test_documents_are_merged_by_their_form(documents: dict[int, Any], expected: Any) -> None:
    assert merge_documents(documents) == expected


def test_order_of_workers_does_not_matter_for_sums() -> None:
    pages = [parse_page(page(n, n, buckets=(n, 0, n)).decode()) for n in range(5)]
    shuffled = random.Random(1).sample(pages, len(pages))
    assert merge(pages) == merge(shuffled)
