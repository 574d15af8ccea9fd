"""The picture of a one-hop run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(results: Mapping[str, Mapping[str, Mapping[str, Any]]], proxies: Sequence[str], path: Path) -> None:
    """Bars of CPU per request (us) for each load, one group per load."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    loads = list(results)
    width = 0.8 / len(proxies)
    for at, proxy in enumerate(proxies):
        heights = [float(results[load][proxy]["cpu_us"]) for load in loads]
        places = [number + at * width for number in range(len(loads))]
        bars = axes.bar(places, heights, width, label=proxy)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(loads))], loads)
    axes.set_ylabel("CPU per request of the proxy process, µs")
    axes.set_title("One HTTP/1.1 hop, 32 connections, 61-byte body (less is better)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
