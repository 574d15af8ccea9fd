"""The data plane against Envoy, HAProxy and nginx, configured alike, in one run on this machine.

Every case runs all peers in alternating windows; figures are medians, ratios are of the same round. Results go to
docs/benchmarks: data_plane.json, pictures, README.md; and the table in the project's README.md. Exit codes: 0 all goals of this run
met, 1 a goal missed or a case failed, 2 wrong usage or a missing program.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.data_plane.cases import all_cases, name_of, select
from benchmarks.data_plane.goals import State, check
from benchmarks.data_plane.machine import MissingToolError, check_tools, describe, raise_file_limit
from benchmarks.data_plane.measure import Pace
from benchmarks.data_plane.results import merge
from benchmarks.data_plane.runner import run
from benchmarks.data_plane.tables import doubts, headline


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(name_of(case) for case in all_cases()))
        return 0
    if options.seconds < 2 or options.rounds < 1:
        parser.error("--seconds must be >= 2 (shorter windows lie) and --rounds >= 1")
    try:
        cases = select(options.only, is_full=options.full)
        check_tools()
    except ValueError as exc:
        parser.error(str(exc))
    except MissingToolError as exc:
        print(f"data_plane: {exc}", file=sys.stderr)
        return 2
    cores = sorted(os.sched_getaffinity(0))
    raise_file_limit()
    facts = {"command": _command(options), **describe(len(cores))}
    records: dict[str, Any] = {}
    started = time.monotonic()
    try:
        run(cases, Pace(rounds=options.rounds, seconds=options.seconds), cores, records)
    finally:
        os.sched_setaffinity(0, cores)
        merge(options.output / report.DATA_PLANE, facts, records)
    print(f"\n{len(records)} cases in {(time.monotonic() - started) / 60:.1f} min\n")
    for name, record in records.items():
        print("\n".join(headline(name, record)))
    report.write(options.output)
    print(f"\nwritten to {options.output}")
    if doubts(records):
        print(f"\nWARNING: {doubts(records)}")
    verdicts = check(records)
    print("\nGoals")
    for verdict in verdicts:
        print(f"  {verdict}")
    has_failed = any("failed" in record for record in records.values())
    return 1 if has_failed or any(verdict.state is State.MISSED for verdict in verdicts) else 0


def _command(options: argparse.Namespace) -> str:
    """What a reader types for the same figures."""
    words = ["python", "-m", "benchmarks", "data_plane", *(["--full"] if options.full else [])]
    words += ["--only", *options.only] if options.only else []
    return shlex.join([*words, "--rounds", str(options.rounds), "--seconds", str(options.seconds)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks data_plane",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CASE", help="a group (`heads`) or a case (`heads/unique`)"
    )
    parser.add_argument("--full", action="store_true", help="every case; without it a quick choice of them")
    parser.add_argument("--rounds", type=int, default=3, help="windows per proxy and case (default 3)")
    parser.add_argument("--seconds", type=int, default=2, help="length of a window, at least 2 (default 2)")
    parser.add_argument(
        "--output", type=Path, default=report.FOLDER, help="folder of the results (default docs/benchmarks)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    return parser
