"""One metrics page out of several, in Prometheus' text format. Pure.

Counters and histograms are summed: what is left of a worker that has ended or does not answer is its last known value, so that no sum ever
falls. Gauges are summed over the workers that answered, but for those in `_GAUGES`, where a sum would mean nothing. `process_*` is the
sum over the workers and the control process; memory that they share counts once for each.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_GAUGES: Final[Mapping[str, Callable[[float, float], float]]] = {
    "envoy_cluster_circuit_breakers_default_cx_open": max,
    "envoy_cluster_circuit_breakers_default_rq_open": max,
    "envoy_cluster_circuit_breakers_default_rq_pending_open": max,
    "envoy_cluster_circuit_breakers_default_rq_retry_open": max,
    "envoy_cluster_lb_subsets_active": max,
    "envoy_cluster_membership_degraded": max,
    "envoy_cluster_membership_excluded": max,
    "envoy_cluster_membership_healthy": min,
    "envoy_cluster_membership_total": max,
    "envoy_cluster_outlier_detection_ejections_active": max,
    "envoy_http_adaptive_concurrency_gradient_controller_min_rtt_calculation_active": max,
    "envoy_http_adaptive_concurrency_gradient_controller_min_rtt_msecs": max,
    "envoy_http_adaptive_concurrency_gradient_controller_sample_rtt_msecs": max,
    "meshwork_sidecar_series_overflowed": max,
}
"""Gauges that every worker has of one and the same thing."""


@dataclass(slots=True)
class Family:
    """The samples of one metric. For histograms with `_bucket`, `_sum` and `_count`."""

    kind: str
    help_line: str
    samples: dict[str, float] = field(default_factory=dict)
    """`name{labels}` -> value, in order."""

    @property
    def only_grows(self) -> bool:
        return self.kind in ("counter", "histogram")


Page = dict[str, Family]


def parse_page(text: str) -> Page:
    """A page that `mesh.telemetry.exposition` wrote: `# HELP`, `# TYPE`, then the samples of the family."""
    page: Page = {}
    help_line = ""
    family = Family("untyped", "")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            help_line = line
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            family = page.setdefault(name, Family(kind, help_line))
        elif line:
            series, _, value = line.rpartition(" ")
            family.samples[series] = float(value) if not value.isdecimal() else int(value)
    return page


def merge(pages: Iterable[Page]) -> Page:
    """All pages as one."""
    merged: Page = {}
    for page in pages:
        for name, family in page.items():
            into = merged.setdefault(name, Family(family.kind, family.help_line))
            join = _GAUGES.get(name)
            for series, value in family.samples.items():
                known = into.samples.get(series)
                if known is None:
                    into.samples[series] = value
                else:
                    into.samples[series] = known + value if join is None else join(known, value)
    return merged


def counters_of(page: Page) -> Page:
    """The part of a page that only grows."""
    return {name: family for name, family in page.items() if family.only_grows}


def render_page(page: Page) -> bytes:
    """The text of a page."""
    lines: list[str] = []
    for name, family in page.items():
        lines += [family.help_line, f"# TYPE {name} {family.kind}"]
        lines += [f"{series} {_number(value)}" for series, value in family.samples.items()]
    return ("\n".join(lines) + "\n").encode()


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else repr(float(value))


class MergedMetrics:
    """Pages over time: remembers what workers have counted, also those that have ended."""

    def __init__(self) -> None:
        self._last: dict[int, Page] = {}
        """By index, the last page of the worker that lives now."""
        self._ended: Page = {}
        """The last counters of workers that have ended, together."""

    def on_ended(self, index: int) -> None:
        """The worker at `index` has ended; the next page of that index is another one's."""
        last = self._last.pop(index, None)
        if last is not None:
            self._ended = merge([self._ended, counters_of(last)])

    def page(self, scraped: Mapping[int, bytes | None]) -> Page:
        """The merged page. None: the worker did not answer; its counters stand as they were last seen."""
        pages = [self._ended]
        for index, text in scraped.items():
            if text is None:
                pages.append(counters_of(self._last.get(index, {})))
            else:
                self._last[index] = parse_page(text.decode())
                pages.append(self._last[index])
        return merge(pages)

    def value(self, index: int, name: str) -> float:
        """A metric without labels of the worker's last page; 0 when there is none."""
        family = self._last.get(index, {}).get(name)
        return family.samples.get(name, 0) if family is not None else 0
