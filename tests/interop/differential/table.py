"""differences.yaml and differences_reasons.yaml: every known difference and why it is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.interop.differential.compare import Difference

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    reasons: Mapping[str, str]
    """Key -> why, in words for a reader."""
    reason_of: Mapping[str, str]
    """Case -> key."""
    known: Mapping[str, Difference]
    """By case."""


def read_table() -> Table:
    """Raises KeyError or OSError when the files are not what they should be."""
    reasons = yaml.safe_load((HERE / "reasons.yaml").read_text())
    path = HERE / "differences.yaml"
    entries = yaml.safe_load(path.read_text()) if path.exists() else []
    return Table(
        reasons=reasons,
        reason_of={entry["case"]: entry["reason"] for entry in entries},
        known={entry["case"]: Difference(entry["case"], entry["envoy"], entry["sidecar"]) for entry in entries},
    )
