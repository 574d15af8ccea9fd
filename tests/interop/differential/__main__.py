"""`python -m tests.interop.differential`: what differs now, as differences.yaml wants it. Reasons are for a person to write."""

import asyncio
import sys
import tempfile
from pathlib import Path

import yaml

from tests.interop.differential.compare import differences
from tests.interop.differential.corpus import CORPUS
from tests.interop.differential.proxies import run_both
from tests.interop.differential.table import read_table


def main() -> None:
    with tempfile.TemporaryDirectory() as where:
        envoy, sidecar = asyncio.run(run_both(CORPUS, Path(where)))
    known = read_table().reason_of
    entries = [
        {"case": one.case, "reason": known.get(one.case, "?"), "envoy": one.envoy, "sidecar": one.sidecar}
        for one in differences(CORPUS, envoy, sidecar).values()
    ]
    yaml.safe_dump(entries, sys.stdout, sort_keys=False, allow_unicode=True, width=140)


if __name__ == "__main__":
    main()
