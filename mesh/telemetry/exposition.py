"""Prometheus' text format, written at scrape time. Pure.

Source: prometheus.io, "Exposition formats", text format 0.0.4. The counters themselves are plain ints of whoever counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def label_text(labels: Mapping[str, str]) -> str:
    """`a="x",b="y"`, escaped; empty for no labels."""
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()])


class Exposition:
    """Collects samples of one scrape, family by family."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str) -> None:
        """Begin a family; its samples follow. `kind` is counter, gauge or histogram."""
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        self._lines += [f"# HELP {name} {escaped}", f"# TYPE {name} {kind}"]

    def sample(self, name: str, labels: str, value: float) -> None:
        """One sample. `labels` comes from `label_text`."""
        shown = f"{value:d}" if isinstance(value, int) else repr(float(value))
        self._lines.append(f"{name}{{{labels}}} {shown}" if labels else f"{name} {shown}")

    def histogram(self, name: str, labels: str, bounds: Sequence[float], buckets: Iterable[int], total: float) -> None:
        """A histogram. `buckets` are not cumulative and one more than `bounds`, the last for +Inf."""
        separator = "," if labels else ""
        count = 0
        for bound, bucket in zip([*bounds, float("inf")], buckets, strict=True):
            count += bucket
            le = "+Inf" if bound == float("inf") else f"{bound:g}" if bound < 1e6 else f"{bound:.0f}"
            self._lines.append(f'{name}_bucket{{{labels}{separator}le="{le}"}} {count}')
        self.sample(f"{name}_sum", labels, total)
        self.sample(f"{name}_count", labels, count)

    def render(self) -> bytes:
        """The whole page."""
        return ("\n".join(self._lines) + "\n").encode()
