"""What the data plane promises, checked against results."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.data_plane.cases import MATCHING, WORKERS

Record = Mapping[str, Any]


class State(enum.Enum):
    MET = "met"
    MISSED = "MISSED"
    NOT_MEASURED = "not measured"
    """The case was not part of the run, or cannot run here; says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A value of one case and its bound."""

    name: str
    case: str
    value: Callable[[Record], float]
    limit: Callable[[Record], float]
    is_at_most: bool = True
    unit: str = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a goal."""

    goal: Goal
    state: State
    value: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def sign(self) -> str:
        return "<=" if self.goal.is_at_most else ">="

    def __str__(self) -> str:
        figures = (
            "" if self.value is None else f": {self.value:,.2f} {self.goal.unit}, goal {self.sign} {self.limit:,.2f}"
        )
        return f"{self.state.value:<13} {self.goal.name}{figures}{f' ({self.note})' if self.note else ''}"


def _own(record: Record, key: str, reference: str | None = None) -> float:
    value = record["peers"]["meshwork"][key]
    return float(value if reference is None else value[reference])


def _ratio(case: str, name: str, key: str, reference: str, bound: float, *, is_at_most: bool = True) -> Goal:
    return Goal(
        name=name,
        case=case,
        value=lambda record: _own(record, key, reference),
        limit=lambda record: bound,
        is_at_most=is_at_most,
    )


def _against_envoy(case: str, name: str, key: str, unit: str) -> Goal:
    return Goal(
        name=name,
        case=case,
        value=lambda record: _own(record, key),
        limit=lambda record: float(record["peers"]["envoy"][key]),
        unit=unit,
    )


def _goals_of_heads(case: str, what: str) -> tuple[Goal, ...]:
    return (
        _ratio(case, f"CPU per request to Envoy's, 32 connections, {what}", "cpu_ratio", "envoy", 0.7),
        _ratio(case, f"CPU per request to HAProxy's, 32 connections, {what}", "cpu_ratio", "haproxy", 1.6),
        _ratio(case, f"p99 to Envoy's, 32 connections, {what}", "p99_ratio", "envoy", 1.0),
    )


def _flatness(record: Record) -> float:
    sizes = record["routes"]
    return float(sizes["10000"]["match_us"]) / float(sizes["100"]["match_us"])


GOALS: tuple[Goal, ...] = (
    *_goals_of_heads("heads/repeat", "heads repeat"),
    *_goals_of_heads("heads/unique", "unique heads"),
    _against_envoy("latency/10000", "p99 at 10,000 req/s, at most Envoy's", "p99_us", "us"),
    _ratio("download/64KB", "64 KB download, throughput to Envoy's", "rate_ratio", "envoy", 1.0, is_at_most=False),
    _ratio("upload/64KB", "64 KB upload, throughput to Envoy's", "rate_ratio", "envoy", 1.0, is_at_most=False),
    _against_envoy("latency/1000", "added p99 at 1,000 req/s, at most Envoy's", "added_p99_us", "us"),
    Goal(
        name="resident memory with 100 clusters",
        case="memory/100",
        value=lambda record: _own(record, "rss_mib"),
        limit=lambda record: 50.0,
        unit="MiB",
    ),
    Goal(
        name="resident memory with 1,000 clusters to Envoy's",
        case="memory/1000",
        value=lambda record: _own(record, "rss_ratio_to_envoy"),
        limit=lambda record: 0.6,
    ),
    Goal(
        name="throughput of two workers to one",
        case=WORKERS,
        value=lambda record: _own(record, "speed_up"),
        limit=lambda record: 1.7,
        is_at_most=False,
    ),
    Goal(name="time for a match, 10,000 routes to 100", case=MATCHING, value=_flatness, limit=lambda record: 2.0),
)


def check(cases: Mapping[str, Record], goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Every goal, in order. A case that failed misses its goals."""
    return [_check(goal, cases.get(goal.case)) for goal in goals]


def _check(goal: Goal, record: Record | None) -> Verdict:
    if record is None:
        return Verdict(goal=goal, state=State.NOT_MEASURED)
    if "failed" in record:
        note = f"the case failed: {record['failed'].splitlines()[0]}"
        return Verdict(goal=goal, state=State.MISSED, note=note)
    if "unavailable" in record:
        return Verdict(goal=goal, state=State.NOT_MEASURED, note=record["unavailable"])
    value, bound = goal.value(record), goal.limit(record)
    is_met = value <= bound if goal.is_at_most else value >= bound
    state, note = (State.MET if is_met else State.MISSED), ""
    if not is_met and record.get("machine_limit"):
        state, note = State.NOT_MEASURED, record["machine_limit"]
    return Verdict(goal=goal, state=state, value=value, limit=bound, note=note)
