"""Coverage-guided fuzzing of what reads bytes from the network; FUZZ_SECONDS (20) for each target."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.fuzz_targets import MAX_BYTES, TARGETS, seeds

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for at, seed in enumerate(seeds(target)):
        (corpus / str(at)).write_bytes(seed)
    limits = [f"-max_total_time={SECONDS}", f"-max_len={MAX_BYTES}", "-timeout=20", "-rss_limit_mb=4096"]
    command = [sys.executable, "-m", "tests.soak.fuzz", target, *limits, f"-artifact_prefix={tmp_path}/", str(corpus)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=SECONDS + 300, check=False
    )
    found = [repr(path.read_bytes()) for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{found}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None, done.stderr[-2000:]
    print(f"{target}: {runs[1]} inputs in {SECONDS} s")
