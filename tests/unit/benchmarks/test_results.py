"""From windows to medians, goals, files and pages."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import report, report_tables
from benchmarks.data_plane.goals import State, check
from benchmarks.data_plane.plots import draw_all
from benchmarks.data_plane.results import merge
from benchmarks.data_plane.summary import limit, summarise, summarise_paced
from benchmarks.data_plane.tables import brief, doubts, headline
from benchmarks.data_plane.workers import machine_limit, summarise_workers
from tests.unit.benchmarks import sample

pytestmark = pytest.mark.unit


def test_ratios_are_of_the_same_round() -> None:
    """The machine is slow in one round: medians of each peer would say 10 / 40, rounds say a half."""
    windows = {
        "meshwork": [sample.window(10), sample.window(10), sample.window(100)],
        "envoy": [sample.window(20), sample.window(40), sample.window(200)],
    }
    row = summarise(windows, 61, shares_core=True)["meshwork"]
    assert (row["cpu_us"], row["cpu_ratio"]) == (10, {"envoy": 0.5})


def test_throughput_of_bodies() -> None:
    row = summarise({"envoy": [sample.window(1, 100)]}, 1024 * 1024, shares_core=True)["envoy"]
    assert (row["mib_per_s"], row["requests_per_s"], row["spans_per_1000"]) == (100, 100, 10)


@pytest.mark.parametrize(
    ("proxy", "upstream", "load", "shares_core", "wanted"),
    [
        (0.97, 0.3, 0.3, True, "proxy"),
        (0.50, 0.5, 0.45, True, "load"),
        (0.50, 0.5, 0.45, False, ""),
        (0.95, 0.5, 0.45, True, "proxy and load"),
    ],
)
def test_what_was_saturated_is_named(
    proxy: float, upstream: float, load: float, shares_core: bool, wanted: str
) -> None:
    assert limit({"proxy": proxy, "upstream": upstream, "load": load}, shares_core=shares_core) == wanted


def test_added_latency_is_over_direct_in_the_same_round() -> None:
    rows = summarise_paced(
        {"direct": [sample.paced(100), sample.paced(900)], "meshwork": [sample.paced(300), sample.paced(1100)]}
    )
    assert rows["meshwork"]["added_p99_us"] == 200
    assert "added_p99_us" not in rows["direct"]


def test_workers_are_compared_within_a_round() -> None:
    rows = summarise_workers({"envoy": {1: [sample.worker_window(1000, 1.0)], 2: [sample.worker_window(1500, 1.5)]}})
    assert rows["envoy"]["speed_up"] == 1.5


def test_a_full_machine_is_named_as_the_limit_of_workers() -> None:
    full = {"idle": 0.02, "proxy_busy": 1.5, "upstream_busy": 0.3, "load_busy": 0.2}
    assert machine_limit(full) == "the machine was full: workers 1.50 cores, upstream 0.30, load generator 0.20"
    assert machine_limit({**full, "idle": 0.4}) == ""
    assert machine_limit({**full, "proxy_busy": 1.9}) == ""


def test_goals_are_met_missed_or_not_measured() -> None:
    cases = sample.cases()
    states = {verdict.goal.name: verdict.state for verdict in check(cases)}
    assert states["CPU per request to Envoy's, 32 connections, heads repeat"] is State.MET
    assert states["resident memory with 100 clusters"] is State.MET
    assert states["throughput of two workers to one"] is State.MET
    cases["heads/repeat"]["peers"]["meshwork"]["cpu_ratio"]["envoy"] = 0.71
    cases["heads/unique"] = {"failed": "3 of 9 requests failed"}
    del cases["memory/100"]
    again = {verdict.goal.name: verdict for verdict in check(cases)}
    missed = again["CPU per request to Envoy's, 32 connections, heads repeat"]
    assert missed.state is State.MISSED
    assert str(missed).endswith("heads repeat: 0.71 x, goal <= 0.70")
    assert again["CPU per request to Envoy's, 32 connections, unique heads"].state is State.MISSED
    assert again["resident memory with 100 clusters"].state is State.NOT_MEASURED


def test_workers_that_cannot_run_or_lack_cores_miss_no_goal() -> None:
    cases = sample.cases()
    workers = cases["workers/scaling"]
    workers["peers"]["meshwork"]["speed_up"] = 1.3
    assert _workers_state(cases) is State.MISSED
    assert _workers_state({"workers/scaling": {**workers, "machine_limit": "full"}}) is State.NOT_MEASURED
    assert _workers_state({"workers/scaling": {**workers, "unavailable": "no --concurrency"}}) is State.NOT_MEASURED


def _workers_state(cases: dict[str, object]) -> State:
    return next(verdict.state for verdict in check(cases) if verdict.goal.case == "workers/scaling")  # type: ignore[arg-type]


def test_part_of_a_run_replaces_its_cases_only(tmp_path: Path) -> None:
    path = tmp_path / "data_plane.json"
    merge(path, sample.FACTS, {"heads/repeat": {"title": "old"}, "churn/small": {"title": "kept"}})
    merge(path, {**sample.FACTS, "command": "newer"}, {"heads/repeat": {"title": "new"}})
    cases = json.loads(path.read_text())["cases"]
    assert {name: one["title"] for name, one in cases.items()} == {"heads/repeat": "new", "churn/small": "kept"}
    assert [one["command"] for one in cases.values()] == ["newer", "python -m benchmarks data_plane"]


def test_cases_are_kept_in_their_order_and_old_names_dropped(tmp_path: Path) -> None:
    path = tmp_path / "data_plane.json"
    merge(path, sample.FACTS, {"memory/100": {}, "one_hop": {}, "heads/repeat": {}})
    assert list(json.loads(path.read_text())["cases"]) == ["heads/repeat", "memory/100"]


def test_results_of_other_versions_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "data_plane.json"
    merge(path, sample.FACTS, {"heads/repeat": {"title": "old"}})
    merge(path, {**sample.FACTS, "versions": {"envoy": "1.41.0"}}, {"churn/small": {"title": "new"}})
    assert list(json.loads(path.read_text())["cases"]) == ["churn/small"]


def test_pages_and_pictures_are_made_of_results(tmp_path: Path) -> None:
    merge(tmp_path / report.DATA_PLANE, sample.FACTS, sample.cases())
    report.write(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| heads repeat, Meshwork | 15.0 | 0.50 | 1.50 |" in text
    assert "| CPU per request to Envoy's, 32 connections, heads repeat | 0.50 x | ≤ 0.70 | met |" in text
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"cpu.png", "connections.png", "bodies.png", "routes.png", "latency.png", "memory.png"}
    assert all(f"({name})" in text for name in pictures)


def test_pictures_without_results_go(tmp_path: Path) -> None:
    (tmp_path / "memory.png").write_bytes(b"old")
    cases = {name: record for name, record in sample.cases().items() if name == "heads/repeat"}
    assert draw_all(cases, tmp_path) == [("heads", "cpu.png")]
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.png"]


def test_failed_cases_are_in_the_page(tmp_path: Path) -> None:
    path = tmp_path / report.DATA_PLANE
    merge(path, sample.FACTS, {**sample.cases(), "churn/small": {"failed": "no answer"}})
    assert "`churn/small` failed: no answer" in report.page(report.read(path), None, None, [])


def test_readme_keeps_what_is_outside_the_markers() -> None:
    text = f"# Name\n{report.BEGIN}\nold\n{report.END}\nrest\n"
    assert report.replace_marked(text, "new \\1\n") == f"# Name\n{report.BEGIN}\nnew \\1\n{report.END}\nrest\n"
    with pytest.raises(report.MarkerError, match="want a line <!-- benchmarks -->"):
        report.replace_marked("# Name\n", "new")


def test_the_projects_readme_has_the_markers() -> None:
    assert report.replace_marked((report.ROOT / "README.md").read_text(), "")


def test_summary_names_peers_and_ratio() -> None:
    text = report_tables.summary({**sample.FACTS, "cases": sample.cases()}, None, None)
    assert "| 2 cores, Linux 6.1, Python 3.11.7 | Meshwork | Envoy 1.40 | HAProxy 2.6 | nginx 1.22 |" in text
    assert "| CPU per request, heads repeat | **15.0 µs** (0.50× Envoy) | 30.0 µs | 10.0 µs | 12.0 µs |" in text


def test_every_kind_of_case_has_its_lines() -> None:
    for name, record in sample.cases().items():
        assert brief(name, record).startswith(f"{name}: ")
        assert len(headline(name, record)) >= 3
    assert headline("a/b", {"failed": "why"}) == ["a/b: FAILED: why"]


def test_busy_machines_cast_doubt() -> None:
    cases = sample.cases()
    assert doubts(cases) == ""
    cases["churn/small"]["peers"]["nginx"]["busy"]["foreign"] = 0.4
    assert "in 1 of 24 cases (up to 0.40 cores, in churn/small)" in doubts(cases)


def test_options_belong_to_one_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["store", "cluster", "--rounds", "1"]) == 2
    assert command_line.main(["stores"]) == 2
    assert "no benchmark called stores: want some of data_plane, store" in capsys.readouterr().err
