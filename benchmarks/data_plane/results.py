"""The results file: one record for each case, kept from run to run as long as machine and versions are the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.data_plane.cases import all_cases, name_of
from benchmarks.data_plane.targets import DIFFERENCES

_WHAT = (
    "HTTP/1.1 through one or two proxies on loopback. Every case ran all its peers in alternating windows of one run; figures are "
    "medians, ratios are medians of ratios within a round. CPU is that of all processes of the proxy, user and system."
)


def merge(path: Path, facts: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> None:
    """Put records into the file; each names the command that made it. Records of another machine or other versions are dropped."""
    command = facts["command"]
    cases = {name: {"command": command, **record} for name, record in records.items()}
    same = {key: facts[key] for key in ("machine", "versions")}
    if path.exists():
        before = json.loads(path.read_text())
        if all(before.get(key) == value for key, value in same.items()):
            cases = {**before["cases"], **cases}
    order = [name_of(case) for case in all_cases()]  # cases that are no more are dropped
    cases = {name: cases[name] for name in order if name in cases}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"what": _WHAT, **same, "differences": DIFFERENCES, "cases": cases}
    path.write_text(json.dumps(document, indent=1) + "\n")
