"""Real Envoy takes the bootstrap files that the benchmarks write."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.data_plane.cases import Setup
from benchmarks.data_plane.envoy_file import bootstrap
from benchmarks.data_plane.machine import envoy_binary
from benchmarks.data_plane.targets import Target

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "setup", [Setup(), Setup(features=False), Setup(routes=9), Setup(clusters=3), Setup(regex_routes=2)], ids=str
)
def test_envoy_takes_the_file(setup: Setup, tmp_path: Path) -> None:
    target = Target(setup=setup, listen=10000, stable=(9001, 9002), canary=(9003,), collector=4317)
    file = tmp_path / "envoy.json"
    file.write_text(bootstrap(target))
    command = [str(envoy_binary()), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
