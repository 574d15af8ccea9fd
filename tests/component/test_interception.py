"""Interception end to end: kernel rules, original destination, data plane. As whoever runs the tests, in a namespace of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.component


def test_redirected_connections_go_where_they_were_meant_to() -> None:
    command = ["unshare", "-rn", sys.executable, "-W", "error", "-m", "tests.component.interception_scenario"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
