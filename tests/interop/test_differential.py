"""Envoy and our sidecar, request by request: every difference is known and has its reason."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.interop.differential.compare import differences
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


def test_corpus_is_large_and_its_names_tell_cases_apart() -> None:
    assert len(CORPUS) >= 150
    assert len({case.name for case in CORPUS}) == len(CORPUS)


def test_every_difference_has_a_reason_and_the_page_is_up_to_date() -> None:
    table = read_table()
    assert set(table.reason_of.values()) == set(table.reasons)
    assert {case.name for case in CORPUS} >= set(table.known)
    assert PAGE.read_text() == render(table), "run python -m tests.interop.differential.render"
