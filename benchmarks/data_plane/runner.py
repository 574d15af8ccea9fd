"""Runs cases one after the other; each becomes a record of the results, also when it fails."""

import os
import re
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.data_plane.cases import (
    MATCHING,
    PEERS,
    WORKERS,
    AnyCase,
    Case,
    MemoryCase,
    PacedCase,
    Setup,
    name_of,
)
from benchmarks.data_plane.machine import ROOT, Placement, place, place_workers
from benchmarks.data_plane.matching import measure_matching
from benchmarks.data_plane.measure import Pace, WindowError, measure_case
from benchmarks.data_plane.memory import measure_memory
from benchmarks.data_plane.paced import measure_paced
from benchmarks.data_plane.peers import Peer, Site, open_site, running
from benchmarks.data_plane.progress import RunProgress
from benchmarks.data_plane.spans import SpanSink
from benchmarks.data_plane.summary import summarise, summarise_memory, summarise_paced
from benchmarks.data_plane.tables import brief
from benchmarks.data_plane.workers import SETUP, has_concurrency, machine_limit, measure_workers, summarise_workers
from mesh.errors import MeshError

_MEMORY_LOAD_S = 4
_PACED_SECONDS_MORE = 1
"""Latency windows are longer: their p99.9 needs thousands of requests."""
_FAILURES = (WindowError, MeshError, RuntimeError, OSError, subprocess.SubprocessError)
_FOLDER = re.compile(r"\S*/mesh-bench-[^/\s]*/")
"""Of the run's files: results name no place of this machine."""
_FAILURE_CHARS = 600
Record = dict[str, Any]


def run(cases: Sequence[AnyCase], pace: Pace, cores: Sequence[int], records: dict[str, Record]) -> None:
    """Puts the record of every case into `records`, by its name, as soon as it is known. A case that fails says why in `failed`."""
    os.sched_setaffinity(0, place(cores).load)  # before the sink's threads, which inherit it
    with RunProgress(len(cases)) as progress, SpanSink() as sink:
        runner = Runner(pace=pace, cores=tuple(cores), sink=sink, progress=progress)
        for _, group in groupby(cases, key=setup_of):
            records |= runner.run_group(list(group))


def setup_of(case: AnyCase) -> Setup | str:
    """Neighbours with equal values share their processes."""
    match case:
        case Case():
            return case.setup
        case PacedCase():
            return Setup()
        case _:
            return name_of(case)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """What every part of a run needs."""

    pace: Pace
    cores: tuple[int, ...]
    sink: SpanSink
    progress: RunProgress

    def run_group(self, cases: Sequence[AnyCase]) -> dict[str, Record]:
        """Cases with one set-up."""
        setup = setup_of(cases[0])
        if isinstance(setup, str):
            return {name_of(case): self._guarded(case, partial(self._run_alone, case)) for case in cases}
        records: dict[str, Record] = {}
        try:
            with self._site(place(self.cores)) as site, running(site, setup, PEERS) as peers:
                for case in cases:
                    records[name_of(case)] = self._guarded(case, partial(self._run_beside, site, peers, case))
        except _FAILURES as exc:
            for case in cases[len(records) :]:
                records[name_of(case)] = self._failed(case, exc)
        return records

    @contextmanager
    def _site(self, placement: Placement) -> Iterator[Site]:
        """Fresh folder and upstream; this program moves to the load generator's cores."""
        os.sched_setaffinity(0, placement.load)
        with (
            tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder,
            open_site(Path(folder), placement, self.sink.port) as site,
        ):
            yield site

    def _guarded(self, case: AnyCase, work: Callable[[], Record]) -> Record:
        try:
            record = work()
        except _FAILURES as exc:
            return self._failed(case, exc)
        record = {"measured_at": time.strftime("%Y-%m-%d"), **record}
        self.progress.done(brief(name_of(case), record))
        return record

    def _failed(self, case: AnyCase, exc: Exception) -> Record:
        self.progress.done(f"{name_of(case)}: FAILED: {exc}")
        text = _FOLDER.sub("", str(exc)).replace(f"{ROOT}/", "")
        return {"failed": textwrap.shorten(text, _FAILURE_CHARS)}

    def _run_beside(self, site: Site, peers: Mapping[str, Peer], case: AnyCase) -> Record:
        """A case on processes that run already."""
        if isinstance(case, Case):
            return self._closed_loop(site, peers, case)
        assert isinstance(case, PacedCase), f"{name_of(case)} starts its own processes"
        return self._paced(site, peers, case)

    def _closed_loop(self, site: Site, peers: Mapping[str, Peer], case: Case) -> Record:
        windows = measure_case(site, peers, case, self.pace, self.sink.spans, self.progress)
        shares_core = site.placement.upstream == site.placement.load
        return {
            "kind": "closed_loop",
            "title": case.title,
            "rounds": self.pace.rounds,
            "window_s": self.pace.seconds,
            "connections": case.connections,
            "body_bytes": case.request.body_bytes,
            "peers": summarise(windows, case.request.body_bytes, shares_core=shares_core),
        }

    def _paced(self, site: Site, peers: Mapping[str, Peer], case: PacedCase) -> Record:
        pace = Pace(rounds=self.pace.rounds, seconds=self.pace.seconds + _PACED_SECONDS_MORE)
        return {
            "kind": "paced",
            "title": case.title,
            "rounds": pace.rounds,
            "window_s": pace.seconds,
            "connections": case.connections,
            "rate_per_s": case.rate_per_s,
            "peers": summarise_paced(measure_paced(site, peers, case, pace, self.progress)),
        }

    def _run_alone(self, case: AnyCase) -> Record:
        """A case with processes of its own."""
        if isinstance(case, MemoryCase):
            with self._site(place(self.cores)) as site:
                found = measure_memory(site, case, _MEMORY_LOAD_S, self.progress)
            return {"kind": "memory", "title": case.title, "clusters": case.clusters, "peers": summarise_memory(found)}
        if case == WORKERS:
            return self._workers()
        assert case == MATCHING, f"no way to run {name_of(case)}"
        return {"kind": "matching", "title": "route table alone", "routes": measure_matching(self.progress.doing)}

    def _workers(self) -> Record:
        placement = place_workers(self.cores)
        with self._site(placement) as site:
            rows = summarise_workers(measure_workers(site, self.pace, self.progress))
        record: Record = {
            "kind": "workers",
            "title": "two workers to one",
            "rounds": self.pace.rounds,
            "window_s": self.pace.seconds,
            "regex_routes": SETUP.regex_routes,
            "cores": len(self.cores),
            "peers": rows,
        }
        if not has_concurrency():
            return {**record, "unavailable": "`python -m sidecar` has no --concurrency"}
        return {**record, "machine_limit": machine_limit(rows["meshwork"]["workers"]["2"])}
