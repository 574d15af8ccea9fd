"""The machine a run is made on: which core does what, which tools there are, what the numbers depend on."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = {
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "taskset": "util-linux",
}
"""Command -> Debian package."""
_FILES_WANTED = 20_000


class MissingToolError(Exception):
    """A program that a benchmark needs is not installed. Says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Cores of the three parties. The proxies have theirs to themselves when the machine has two or more."""

    proxy: tuple[int, ...]
    upstream: tuple[int, ...]
    load: tuple[int, ...]
    """Load generator, span sink and this program."""

    @property
    def all(self) -> frozenset[int]:
        """Every core in use."""
        return frozenset((*self.proxy, *self.upstream, *self.load))


def place(cores: Iterable[int]) -> Placement:
    """One core for the proxy; with three or more, one each for upstream and load."""
    have = sorted(cores)
    if len(have) == 1:
        return Placement(proxy=(have[0],), upstream=(have[0],), load=(have[0],))
    return Placement(proxy=(have[0],), upstream=(have[1],), load=(have[2] if len(have) > 2 else have[1],))


def place_workers(cores: Iterable[int]) -> Placement:
    """Two cores for the proxy; the others, if there are any, for upstream and load."""
    have = sorted(cores)
    if len(have) < 4:
        return Placement(proxy=tuple(have), upstream=tuple(have), load=tuple(have))
    return Placement(proxy=(have[0], have[1]), upstream=(have[2],), load=(have[3],))


def envoy_binary() -> Path:
    """Real Envoy from its own virtual environment (see tools/setup.sh). Raises MissingToolError."""
    found = sorted((ROOT / ".envoy").glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise MissingToolError("Envoy is missing in .envoy: run `make setup-bench`")
    return found[0]


def check_tools() -> None:
    """Raises MissingToolError that names everything missing."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for command, package in _PACKAGES.items() if shutil.which(command) is None]
    if missing:
        raise MissingToolError(
            f"missing programs; run `make setup-bench`, or as root: apt-get install {' '.join(missing)}"
        )
    envoy_binary()


def raise_file_limit() -> None:
    """As many open files as this process may have, up to what 1,000 clusters need; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    first = lines[0].strip() if lines else ""
    return first.removeprefix(command[0]).strip()  # Envoy begins with the path of its binary


def describe(cores: int) -> dict[str, Any]:
    """Machine (of which `cores` may be used) and versions, for the results. No names and no paths."""
    uvloop = subprocess.run(
        [sys.executable, "-c", "import uvloop; print(uvloop.__version__)"], capture_output=True, text=True, check=True
    )
    return {
        "machine": {
            "cores": cores,
            "cpu": _cpu_model(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "kernel": platform.release(),
        },
        "versions": {
            "python": platform.python_version(),
            "uvloop": uvloop.stdout.strip(),
            "envoy": _version(str(envoy_binary()), "--version").partition("/")[2].partition("/")[0],
            "haproxy": _version("haproxy", "-v").removeprefix("HAProxy version ").partition(" ")[0],
            "nginx": _version("nginx", "-v").rpartition("/")[2],
            "wrk": _version("wrk", "-v").removeprefix("wrk ").partition(" ")[0],
            "h2load": _version("h2load", "--version").rpartition("/")[2],
        },
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
