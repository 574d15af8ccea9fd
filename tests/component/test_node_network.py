"""The node's network with real namespaces, links, rules and sockets: as root, and as an ordinary user in a user namespace."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.component.network_scenarios import SCENARIOS
from tests.ordinary_user import as_ordinary_user

pytestmark = pytest.mark.component

_TIMEOUT_S = 60


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_as_whoever_runs_the_tests(scenario: str) -> None:
    namespaces = ["--net", "--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net", "--mount"]
    command = [*_unshare(), *namespaces, *_python(), "tests.component.network_scenarios", scenario]
    _run(command)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other test is already run by an ordinary user")
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_as_an_ordinary_user(scenario: str) -> None:
    user = as_ordinary_user()
    namespaces = ["--user", "--map-root-user", "--net", "--mount"]
    _run(
        user.command(
            [*_unshare(), *namespaces, user.python, "-W", "error", "-m", "tests.component.network_scenarios", scenario]
        )
    )


def _python() -> list[str]:

    return [sys.executable, "-W", "error", "-m"]


def _unshare() -> list[str]:
    found = shutil.which("unshare")
    assert found is not None, "unshare is missing: install the package util-linux"
    return [found]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
