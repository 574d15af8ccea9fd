"""Envoy and our sidecar, request by request: every difference is known and has its reason."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.interop.differential.case import Observed, Seen, case
from tests.interop.differential.compare import compare, differences
from tests.interop.differential.corpus import CORPUS
from tests.interop.differential.proxies import run_both
from tests.interop.differential.render import PAGE, render
from tests.interop.differential.table import read_table

pytestmark = pytest.mark.interop


def test_every_difference_is_listed_and_every_listed_one_is_there(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        envoy, sidecar = runner.run(run_both(CORPUS, tmp_path))
    found, known = differences(CORPUS, envoy, sidecar), read_table().known
    assert len(found) < len(CORPUS) // 2  # else something is broken as a whole
    unlisted = [one for name, one in found.items() if name not in known]
    assert unlisted == []
    assert [name for name in known if name not in found] == []
    assert {name: one for name, one in found.items() if one != known[name]} == {}


def _observed(**changes: Any) -> Observed:
    seen = Seen(line="GET / HTTP/1.1", headers=["host: a", "x: 1"], is_whole=True)
    return Observed(**{"answers": ["200"], "connection": "kept", "seen": [seen], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": ["400"]},
        {"answers": ["200", "200"]},
        {"connection": "closed"},
        {"seen": []},
        {"seen": [Seen(line="GET /x HTTP/1.1", headers=["host: a", "x: 1"], is_whole=True)]},
        {"seen": [Seen(line="GET / HTTP/1.1", headers=["host: a"], is_whole=True)]},
        {"seen": [Seen(line="GET / HTTP/1.1", headers=["host: a", "x: 2"], is_whole=True)]},
        {"seen": [Seen(line="GET / HTTP/1.1", headers=["host: a", "x: 1"], body=b"b", is_whole=True)]},
    ],
)
def test_comparison_sees_every_kind_of_difference(changes: dict[str, Any]) -> None:
    one = case("one", b"GET / HTTP/1.1\r\n\r\n")
    assert compare(one, _observed(), _observed()) is None
    assert compare(one, _observed(), _observed(**changes)) is not None


def test_comparison_knows_what_means_the_same() -> None:
    one = case("one", b"GET / HTTP/1.1\r\n\r\n", listener="edge")
    ours = Seen(
        line="GET / HTTP/1.1", headers=["x: 1", "host: a", "x-forwarded-for: 1.2.3.4, 127.0.0.1"], is_whole=True
    )
    theirs = Seen(
        line="GET / HTTP/1.1", headers=["host:a", "x-forwarded-for: 1.2.3.4,10.0.0.1", "x:  1"], is_whole=True
    )
    assert compare(one, _observed(seen=[theirs]), _observed(seen=[ours])) is None
    cut = Seen(line="POST / HTTP/1.1", headers=["host: a"])
    assert compare(one, _observed(seen=[theirs, cut]), _observed(seen=[ours])) is None


def test_corpus_is_large_and_its_names_tell_cases_apart() -> None:
    assert len(CORPUS) >= 150
    assert len({case.name for case in CORPUS}) == len(CORPUS)


def test_every_difference_has_a_reason_and_the_page_is_up_to_date() -> None:
    table = read_table()
    assert set(table.reason_of.values()) == set(table.reasons)
    assert {case.name for case in CORPUS} >= set(table.known)
    assert PAGE.read_text() == render(table), "run python -m tests.interop.differential.render"
