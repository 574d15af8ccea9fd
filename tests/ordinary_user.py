"""Running things as an ordinary user when the tests run as root: uid 65534 and gid 65534 by number, so no account is made."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_ID = 65534


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """How to run a command without root's rights."""

    python: str
    """An interpreter that user may start."""
    environment: dict[str, str]

    def command(self, words: list[str]) -> list[str]:
        """`words` as that user."""
        assignments = [f"{name}={value}" for name, value in self.environment.items()]
        return [*_drop_rights(), "env", *assignments, *words]


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of the ordinary user. Not pytest's tmp_path: each pytest that starts closes its parent to other users."""
    with tempfile.TemporaryDirectory(prefix="ordinary-") as folder:
        os.chown(folder, _ID, _ID)
        yield Path(folder)


def _drop_rights() -> list[str]:
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv is missing: install the package util-linux"
    return [setpriv, f"--reuid={_ID}", f"--regid={_ID}", "--clear-groups"]


@cache
def as_ordinary_user() -> OrdinaryUser:
    """The user, with an interpreter that can import what this one imports. Skips when the machine has none for it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = [path for path in sys.path if path.endswith("site-packages")]
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        user = OrdinaryUser(python, {"PYTHONPATH": ":".join([str(ROOT), *packages]), "PYTHONDONTWRITEBYTECODE": "1"})
        probe = [
            python,
            "-c",
            f"import sys, msgspec, pyroute2, mesh; assert sys.version_info[:2] == {sys.version_info[:2]}",
        ]
        if subprocess.run(user.command(probe), capture_output=True, check=False).returncode == 0:
            return user
    pytest.skip(f"no Python {version} that an ordinary user may start (this one is {sys.executable})")
