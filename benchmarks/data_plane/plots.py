"""The pictures of docs/benchmarks. Axes start at 0; below each figure its ratio to Envoy's, with a line at 1."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_plane.cases import PEERS

Cases = Mapping[str, Mapping[str, Any]]
COLOURS = {"meshwork": "#0b6e4f", "envoy": "#b23a8f", "haproxy": "#3b6fb6", "nginx": "#d98324"}
LABELS = {"meshwork": "Meshwork", "envoy": "Envoy", "haproxy": "HAProxy", "nginx": "nginx"}
_CPU_GOAL = 0.7
Of = Callable[[Mapping[str, Any]], float]


def draw_all(cases: Cases, folder: Path) -> list[tuple[str, str]]:
    """Draw what there are results for. Returns (group of cases, file name)."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for group, name, draw in _PICTURES:
        path = folder / name
        if draw(cases, path):
            drawn.append((group, name))
        else:
            path.unlink(missing_ok=True)  # a picture of results that are no more
    return drawn


def _good(cases: Cases, names: Sequence[str]) -> list[str]:
    """Those of the cases that have results."""
    return [name for name in names if name in cases and "failed" not in cases[name]]


def _all_of(cases: Cases, group: str) -> list[str]:
    return _good(cases, [name for name in cases if name.partition("/")[0] == group])


def _cpu(row: Mapping[str, Any]) -> float:
    return float(row["cpu_us"])


def _bars(axes: Any, cases: Cases, names: Sequence[str], peers: Sequence[str], of: Of) -> None:
    """A group of bars for each case, one for each peer, with their values."""
    width = 0.84 / len(peers)
    size = 7.5 if len(names) * len(peers) <= 16 else 6.5
    for at, peer in enumerate(peers):
        have = [
            (number, of(cases[name]["peers"][peer]))
            for number, name in enumerate(names)
            if peer in cases[name]["peers"]
        ]
        places = [number + (at - (len(peers) - 1) / 2) * width for number, _ in have]
        bars = axes.bar(places, [value for _, value in have], width * 0.94, color=COLOURS[peer], label=LABELS[peer])
        axes.bar_label(bars, fmt=_short, fontsize=size, padding=1)
    axes.set_xticks(range(len(names)))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=axes.get_ylim()[1] * 1.06)
    axes.set_xlim(-0.55, len(names) - 0.45)


def _short(value: float) -> str:
    """A figure in few characters: 0.48, 14.8, 1,204"""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _ratio_bars(axes: Any, cases: Cases, names: Sequence[str], key: str) -> None:
    """Bars of ratios to Envoy, which is the line at 1."""
    others = [peer for peer in PEERS if peer != "envoy"]
    _bars(axes, cases, names, others, lambda row: float(row[key]["envoy"]))


def _lines(axes: Any, cases: Cases, names: Sequence[str], of: Of) -> None:
    for peer in PEERS:
        values = [of(cases[name]["peers"][peer]) for name in names]
        axes.plot(range(len(names)), values, marker="o", markersize=4, color=COLOURS[peer], label=LABELS[peer])
    axes.set_xticks(range(len(names)))
    axes.set_ylim(bottom=0)


def _reference(axes: Any, label: str, goal: float | None = None) -> None:
    """The line at Envoy's value, and the goal's."""
    axes.axhline(1.0, color="#555555", linewidth=1)
    if goal is not None:
        axes.axhline(goal, color="#555555", linewidth=1, linestyle=":")
        axes.annotate(
            f"goal {goal:g}",
            (1.0, goal),
            xycoords=("axes fraction", "data"),
            fontsize=7.5,
            xytext=(3, -3),
            textcoords="offset points",
        )
    axes.annotate(
        "Envoy",
        (1.0, 1.0),
        xycoords=("axes fraction", "data"),
        fontsize=7.5,
        xytext=(3, -3),
        textcoords="offset points",
    )
    axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1.15))
    axes.set_ylabel(label)


def _finish(figure: Any, axes: Sequence[Any], title: str, path: Path) -> bool:
    from matplotlib import pyplot

    for one in axes:
        one.grid(axis="y", color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
        one.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=11, x=0.01, y=0.99, ha="left", va="top")
    figure.legend(
        handles, labels, loc="upper right", bbox_to_anchor=(0.995, 1.0), ncols=len(labels), frameon=False, fontsize=8.5
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _panels(count: int, ratios: Sequence[float], height: float = 5.2) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(count, 1, figsize=(10, height), height_ratios=ratios, sharex=True)
    return figure, axes


_SAME_WORK = (
    "heads/repeat",
    "heads/unique",
    "plain/repeat",
    "plain/unique",
    "two_hops/repeat",
    "two_hops/unique",
    "churn/small",
)
_SHORT = {
    "heads/repeat": "all features,\nheads repeat",
    "heads/unique": "all features,\nunique heads",
    "plain/repeat": "no features,\nheads repeat",
    "plain/unique": "no features,\nunique heads",
    "two_hops/repeat": "two hops,\nheads repeat",
    "two_hops/unique": "two hops,\nunique heads",
    "churn/small": "a connection\nper request",
}


def _draw_cpu(cases: Cases, path: Path) -> bool:
    names = _good(cases, _SAME_WORK)
    if not names:
        return False
    figure, (top, bottom) = _panels(2, (2.2, 1))
    _bars(top, cases, names, PEERS, _cpu)
    top.set_ylabel("µs of CPU per request")
    _ratio_bars(bottom, cases, names, "cpu_ratio")
    _reference(bottom, "× Envoy", _CPU_GOAL)
    bottom.set_xticks(range(len(names)), [_SHORT[name] for name in names], fontsize=8.5)
    return _finish(figure, (top, bottom), "CPU of the proxy per request, 61-byte body (less is better)", path)


def _draw_connections(cases: Cases, path: Path) -> bool:
    names = _all_of(cases, "connections")
    if len(names) < 2:
        return False
    names.sort(key=lambda name: int(cases[name]["connections"]))
    figure, (top, middle, bottom) = _panels(3, (1.6, 1, 1.6), 7.5)
    _lines(top, cases, names, _cpu)
    top.set_ylabel("µs of CPU per request")
    _lines(middle, cases, names, lambda row: float(row["cpu_ratio"]["envoy"]))
    _reference(middle, "CPU × Envoy", _CPU_GOAL)
    _lines(bottom, cases, names, lambda row: float(row["requests_per_s"]) / 1000)
    bottom.set_ylabel("1,000 requests/s")
    bottom.set_xticks(range(len(names)), [f"{cases[name]['connections']}" for name in names])
    bottom.set_xlabel("connections, unique heads")
    return _finish(figure, (top, middle, bottom), "All features, 61-byte body", path)


def _draw_bodies(cases: Cases, path: Path) -> bool:
    names = [*_all_of(cases, "download"), *_all_of(cases, "upload")]
    if not names:
        return False
    figure, (top, bottom) = _panels(2, (1.2, 1))
    _ratio_bars(top, cases, names, "rate_ratio")
    _reference(top, "throughput × Envoy")
    top.set_title("throughput: more is better", fontsize=9, loc="left")
    _ratio_bars(bottom, cases, names, "cpu_ratio")
    _reference(bottom, "CPU × Envoy")
    bottom.set_title("CPU per request: less is better", fontsize=9, loc="left")
    bottom.set_xticks(range(len(names)), [_body_label(name) for name in names], fontsize=8.5)
    return _finish(figure, (top, bottom), "Bodies both ways, all features", path)


def _body_label(name: str) -> str:
    """download/64KB -> two lines"""
    way, _, size = name.partition("/")
    return f"{way}\n{size.replace('KB', ' KB').replace('MB', ' MB').replace('61B', '61 B')}"


def _draw_routes(cases: Cases, path: Path) -> bool:
    names = _all_of(cases, "routes")
    if len(names) < 2:
        return False
    figure, (top, bottom) = _panels(2, (2, 1))
    _bars(top, cases, names, PEERS, _cpu)
    top.set_ylabel("µs of CPU per request")
    _ratio_bars(bottom, cases, names, "cpu_ratio")
    _reference(bottom, "× Envoy")
    bottom.set_xticks(range(len(names)), [cases[name]["title"] for name in names])
    return _finish(figure, (top, bottom), "Requests spread over tables of routes (less is better)", path)


def _draw_latency(cases: Cases, path: Path) -> bool:
    from matplotlib import pyplot

    names = _good(cases, ("latency/1000",))
    if not names:
        return False
    rows = cases[names[0]]["peers"]
    keys = (("added_p50_us", "p50"), ("added_p99_us", "p99"), ("added_p999_us", "p99.9"))
    turned = {label: {"peers": {peer: {"us": rows[peer][key]} for peer in PEERS}} for key, label in keys}
    figure, axes = pyplot.subplots(figsize=(9, 3.8))
    _bars(axes, turned, list(turned), PEERS, lambda row: float(row["us"]))
    axes.set_xticks(range(len(turned)), list(turned))
    axes.set_ylabel("µs more than without a proxy")
    direct = rows["direct"]
    axes.set_xlabel(
        f"without a proxy: p50 {direct['p50_us']:.0f} µs, p99 {direct['p99_us']:.0f} µs, p99.9 {direct['p999_us']:.0f} µs",
        fontsize=8.5,
    )
    return _finish(figure, (axes,), "Added latency at 1,000 requests/s (less is better)", path)


def _draw_memory(cases: Cases, path: Path) -> bool:
    from matplotlib import pyplot

    names = _all_of(cases, "memory")
    if not names:
        return False
    figure, axes = pyplot.subplots(figsize=(9, 3.8))
    _bars(axes, cases, names, ("meshwork", "envoy"), lambda row: float(row["rss_mib"]))
    axes.set_xticks(range(len(names)), [cases[name]["title"] for name in names])
    axes.set_ylabel("MiB resident after a load")
    return _finish(figure, (axes,), "Memory with many clusters (less is better)", path)


_PICTURES: tuple[tuple[str, str, Callable[[Cases, Path], bool]], ...] = (
    ("heads", "cpu.png", _draw_cpu),
    ("connections", "connections.png", _draw_connections),
    ("download", "bodies.png", _draw_bodies),
    ("routes", "routes.png", _draw_routes),
    ("latency", "latency.png", _draw_latency),
    ("memory", "memory.png", _draw_memory),
)
