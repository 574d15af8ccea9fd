"""Windows -> the rows of the results: medians, and ratios between peers of the same round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.data_plane.cases import MIB
from benchmarks.data_plane.measure import Window
from benchmarks.data_plane.memory import Memory
from benchmarks.data_plane.paced import DIRECT, QUANTILES, PacedWindow

REFERENCES = ("envoy", "haproxy")
SATURATED = 0.93
"""Share of a core from which it is called saturated: starting and ending wrk costs a window a few per cent."""
Row = dict[str, Any]


def summarise(windows: Mapping[str, Sequence[Window]], body_bytes: int, *, shares_core: bool) -> dict[str, Row]:
    """One row for each peer. `shares_core`: upstream and load generator run on one core."""
    return {name: _row(windows, name, body_bytes, shares_core) for name in windows}


def _row(windows: Mapping[str, Sequence[Window]], name: str, body_bytes: int, shares_core: bool) -> Row:
    own = windows[name]
    rate = _median(own, lambda window: window.requests_per_s)
    busy = {
        "proxy": round(_median(own, lambda window: window.proxy_busy), 2),
        "upstream": round(_median(own, lambda window: window.upstream_busy), 2),
        "load": round(_median(own, lambda window: window.load_busy), 2),
        "foreign": round(_median(own, lambda window: window.foreign_busy), 2),
    }
    return {
        "cpu_us": round(_median(own, lambda window: window.cpu_us), 2),
        "cpu_ratio": _ratios(windows, name, lambda window: window.cpu_us),
        "requests_per_s": round(rate),
        "rate_ratio": _ratios(windows, name, lambda window: window.requests_per_s),
        "mib_per_s": round(rate * body_bytes / MIB, 1),
        "p50_ms": round(_median(own, lambda window: window.p50_ms), 3),
        "p99_ms": round(_median(own, lambda window: window.p99_ms), 3),
        "p99_ratio": _ratios(windows, name, lambda window: window.p99_ms),
        "rss_mib": round(own[-1].rss_mib, 1),
        "busy": busy,
        "limit": limit(busy, shares_core=shares_core),
        "spans_per_1000": round(1000 * sum(w.spans for w in own) / sum(w.requests for w in own), 2),
        "windows": [_window(one) for one in own],
    }


def _window(window: Window) -> Row:
    """A single window, for those who doubt medians."""
    return {
        "cpu_us": round(window.cpu_us, 2),
        "requests_per_s": round(window.requests_per_s),
        "p99_ms": round(window.p99_ms, 3),
        "busy": [
            round(share, 2)
            for share in (window.proxy_busy, window.upstream_busy, window.load_busy, window.foreign_busy)
        ],
    }


def limit(busy: Mapping[str, float], *, shares_core: bool) -> str:
    """What was saturated: `proxy`, `load` (generator or upstream), both, or nothing."""
    others = busy["upstream"] + busy["load"] if shares_core else max(busy["upstream"], busy["load"])
    full = [name for name, share in (("proxy", busy["proxy"]), ("load", others)) if share >= SATURATED]
    return " and ".join(full)


def _median(windows: Sequence[Window], of: Callable[[Window], float]) -> float:
    return statistics.median(of(window) for window in windows)


def _ratios(windows: Mapping[str, Sequence[Window]], name: str, of: Callable[[Window], float]) -> dict[str, float]:
    """To each reference: the median of the ratios within a round."""
    found: dict[str, float] = {}
    for reference in REFERENCES:
        pairs = [(of(own), of(other)) for own, other in zip(windows[name], windows.get(reference, ()), strict=False)]
        if pairs and all(other > 0 for _, other in pairs):
            found[reference] = round(statistics.median(own / other for own, other in pairs), 3)
    return found


def summarise_paced(windows: Mapping[str, Sequence[PacedWindow]]) -> dict[str, Row]:
    """One row for each peer and for `direct`. `added_*`: over direct in the same round, median of the rounds."""
    rows: dict[str, Row] = {}
    for name, own in windows.items():
        row: Row = {key: round(statistics.median(getattr(w, key) for w in own), 1) for key in QUANTILES}
        row["max_us"] = max(w.max_us for w in own)
        row["rate_per_s"] = round(statistics.median(w.rate_per_s for w in own), 1)
        row["cpu_us"] = round(statistics.median(w.cpu_us for w in own), 1)
        row["windows_off_pace"] = sum(1 for w in own if not w.is_paced)
        if name != DIRECT:
            for key in QUANTILES:
                added = (getattr(w, key) - getattr(d, key) for w, d in zip(own, windows[DIRECT], strict=True))
                row[f"added_{key}"] = round(statistics.median(added), 1)
        rows[name] = row
    return rows


def summarise_memory(found: Mapping[str, Memory]) -> dict[str, Row]:
    """One row for each peer."""
    reference = found["envoy"].rss_mib
    return {
        name: {
            "idle_mib": round(one.idle_mib, 1),
            "rss_mib": round(one.rss_mib, 1),
            "rss_ratio_to_envoy": round(one.rss_mib / reference, 3),
            "start_s": round(one.start_s, 2),
            "requests": one.requests,
        }
        for name, one in found.items()
    }
