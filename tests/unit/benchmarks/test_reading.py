"""What load generators report, read."""

import os

import pytest

from benchmarks.data_plane.cases import PacedCase
from benchmarks.data_plane.measure import WindowError
from benchmarks.data_plane.paced import parse_log
from benchmarks.data_plane.processes import core_times, is_ours
from benchmarks.data_plane.wrk import parse_wrk

pytestmark = pytest.mark.unit

WRK = """Running 2s test @ http://127.0.0.1:1/orders
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.04ms  680.03us  12.00ms   50.00%
    Req/Sec    27.44k     2.05k   30.00k    70.00%
  Latency Distribution
     50%    {p50}
     75%    1.20ms
     90%    1.70ms
     99%    {p99}
  54869 requests in {duration}, 12.14MB read
{errors}Requests/sec:  26128.00
Transfer/sec:      5.78MB
"""
CASE = PacedCase(name="latency/1000", title="", rate_per_s=1000, connections=50)


def test_wrk_report() -> None:
    load = parse_wrk(WRK.format(p50="850.00us", p99="5.67ms", duration="2.10s", errors=""), 0.8)
    assert (load.requests, load.seconds, load.p50_ms, load.p99_ms) == (54869, 2.1, 0.85, 5.67)
    assert (load.errors, load.cpu_s) == (0, 0.8)
    assert load.requests_per_s == pytest.approx(54869 / 2.1)


def test_wrk_report_with_long_times_and_errors() -> None:
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 20\n"
    load = parse_wrk(WRK.format(p50="1.50s", p99="1.00m", duration="1.00m", errors=errors))
    assert (load.p50_ms, load.p99_ms, load.seconds, load.errors) == (1500, 60000, 60, 30)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused"])
def test_wrk_without_a_report_is_an_error(output: str) -> None:
    with pytest.raises(RuntimeError, match="wrk said something unexpected"):
        parse_wrk(output)


def _log(seconds: int, took: int = 200, gap_us: int = 1000, slow: int = 0) -> list[str]:
    """Lines as h2load writes them: in order of the end, not of the start."""
    count = int(seconds * 1e6 / gap_us)
    rows = [(5_000_000 + n * gap_us, 60_000 if n % 1000 < slow else took) for n in range(count)]
    return [f"{start}\t200\t{us}" for start, us in sorted(rows, key=lambda row: row[0] + row[1])]


def test_paced_window_leaves_out_beginning_and_end() -> None:
    lines = _log(3)
    lines[0] = "5000000\t200\t900000"  # while connections are made
    window = parse_log(lines, CASE, 3)
    assert (window.p50_us, window.p99_us, window.p999_us, window.max_us) == (200, 200, 200, 200)
    assert window.rate_per_s == pytest.approx(1000)
    assert window.is_paced


def test_quantiles_are_of_all_answers() -> None:
    window = parse_log(_log(3, slow=20), CASE, 3)
    assert (window.p50_us, window.p99_us, window.p999_us) == (200, 60_000, 60_000)


def test_answers_longer_than_a_turn_mark_the_window() -> None:
    assert not parse_log(_log(3, slow=2), CASE, 3).is_paced


def test_a_wrong_rate_marks_the_window() -> None:
    window = parse_log(_log(3, gap_us=1100), CASE, 3)
    assert window.rate_per_s == pytest.approx(909, abs=1)
    assert not window.is_paced


def test_failed_requests_fail_the_window() -> None:
    with pytest.raises(WindowError, match="1 of 3001 requests failed"):
        parse_log([*_log(3), "6000000\t-1\t10"], CASE, 3)


def test_an_empty_log_fails_the_window() -> None:
    with pytest.raises(WindowError, match="h2load logged no request"):
        parse_log([], CASE, 3)


def test_core_times_are_of_the_cores_asked_for() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    row = " ".join(str(n * ticks) for n in (10, 1, 5, 50, 2, 3, 4, 6, 0, 0))
    stat = f"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 {row}\ncpu1 {row}\ncpu11 {row}\nintr 5\n"
    times = core_times((0, 1), stat)
    assert (times.idle_s, times.stolen_s) == (104, 12)


def test_descendants_and_the_kernel_are_not_other_programs() -> None:
    own = os.getpid()
    parents = {own: 50, 50: 1, 1: 0, own + 1: own, own + 2: own + 1, own + 3: 50, 2: 0, 7: 2}
    assert {pid for pid in parents if not is_ours(pid, parents)} == {50, 1, own + 3}
