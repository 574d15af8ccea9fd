"""Records as lines of text, for the terminal."""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


FOREIGN_ALLOWED = 0.1
"""Cores' worth of CPU time of other programs from which figures are called doubtful."""


def brief(name: str, record: Record) -> str:
    """A case in one line, to show that it is over."""
    if "failed" in record:
        return f"{name}: FAILED: {record['failed']}"
    own = record["peers"].get("meshwork", {}) if "peers" in record else {}
    match record["kind"]:
        case "closed_loop":
            return f"{name}: {own['cpu_us']:.1f} us/req, {own['cpu_ratio']['envoy']:.2f}x Envoy, {own['requests_per_s']:,} req/s"
        case "paced":
            return f"{name}: p99 {own['p99_us']:.0f} us, {own['added_p99_us']:.0f} us added"
        case "memory":
            return f"{name}: {own['rss_mib']:.1f} MiB, {own['rss_ratio_to_envoy']:.2f}x Envoy"
        case "workers":
            return f"{name}: not available" if "unavailable" in record else f"{name}: {own['speed_up']:.2f}x one worker"
        case _:
            return f"{name}: done"


def doubts(cases: Mapping[str, Record]) -> str:
    """A warning when other programs were busy during the run; empty otherwise."""
    shares = {name: share for name, record in cases.items() if (share := _foreign(record)) is not None}
    busy = {name: share for name, share in shares.items() if share > FOREIGN_ALLOWED}
    if not busy:
        return ""
    worst = max(busy, key=lambda name: busy[name])
    return (
        f"Other programs took CPU time in {len(busy)} of {len(shares)} cases (up to {busy[worst]:.2f} cores, in {worst}): "
        "these figures are worth little."
    )


def _foreign(record: Record) -> float | None:
    """The most that other programs took; None where it was not measured."""
    match record.get("kind"):
        case "closed_loop":
            return max(float(row["busy"]["foreign"]) for row in record["peers"].values())
        case "workers":
            return max(
                float(one["foreign_busy"]) for row in record["peers"].values() for one in row["workers"].values()
            )
        case _:
            return None


def headline(name: str, record: Record) -> list[str]:
    """A case with its figures, one line for each peer."""
    if "failed" in record:
        return [f"{name}: FAILED: {record['failed']}"]
    lines = [f"{name}: {record['title']}"]
    match record["kind"]:
        case "closed_loop":
            lines.append(_CLOSED_LOOP_TITLE)
            lines += [_closed_loop(peer, row) for peer, row in record["peers"].items()]
        case "paced":
            lines.append(_PACED_TITLE)
            lines += [_paced(peer, row) for peer, row in record["peers"].items()]
        case "memory":
            lines += [
                f"  {peer:<10}{row['rss_mib']:>8.1f} MiB ({row['rss_ratio_to_envoy']:.2f}x Envoy), {row['idle_mib']:.1f} before the load, "
                f"listening after {row['start_s']:.1f} s"
                for peer, row in record["peers"].items()
            ]
        case "workers":
            lines += [line for peer, row in record["peers"].items() for line in _workers(peer, row)]
            lines += [f"  not available: {record['unavailable']}"] if "unavailable" in record else []
        case "matching":
            lines += [
                f"  {int(count):>6,} routes {row['match_us']:>10.2f} us a match, {row['decode_and_compile_ms']:,.0f} ms to decode"
                for count, row in record["routes"].items()
            ]
    return lines


_CLOSED_LOOP_TITLE = (
    f"  {'proxy':<10}{'CPU us/req':>11}{'x Envoy':>9}{'x HAProxy':>10}{'req/s':>9}{'MiB/s':>8}{'p50 ms':>9}{'p99 ms':>9}"
    f"{'RSS MiB':>9}  busy: proxy upstream load"
)


def _closed_loop(peer: str, row: Record) -> str:
    ratio, busy = row["cpu_ratio"], row["busy"]
    ratios = "".join(
        f"{ratio[name]:>{width}.2f}" if name in ratio else " " * width
        for name, width in (("envoy", 9), ("haproxy", 10))
    )
    return (
        f"  {peer:<10}{row['cpu_us']:>11.1f}{ratios}{row['requests_per_s']:>9,}{row['mib_per_s']:>8,.0f}{row['p50_ms']:>9.2f}"
        f"{row['p99_ms']:>9.2f}{row['rss_mib']:>9.1f}  {busy['proxy']:.2f} {busy['upstream']:.2f} {busy['load']:.2f}"
        f"{'  limit: ' + row['limit'] if row['limit'] else ''}"
    )


_PACED_TITLE = (
    f"  {'proxy':<10}{'p50 us':>9}{'p99 us':>9}{'p99.9 us':>10}   added:{'p50':>8}{'p99':>8}{'p99.9':>8}{'req/s':>10}"
)


def _paced(peer: str, row: Record) -> str:
    keys = ("added_p50_us", "added_p99_us", "added_p999_us")
    added = "".join(f"{row[key]:>8.0f}" for key in keys) if "added_p50_us" in row else " " * 24
    off = f"  {row['windows_off_pace']} windows off pace" if row["windows_off_pace"] else ""
    return f"  {peer:<10}{row['p50_us']:>9.0f}{row['p99_us']:>9.0f}{row['p999_us']:>10.0f}         {added}{row['rate_per_s']:>10,.0f}{off}"


def _workers(peer: str, row: Record) -> list[str]:
    lines = [
        f"  {peer}: {row['speed_up']:.2f}x the requests, CPU per request of one worker {row['cpu_efficiency']:.2f}x that of two"
    ]
    for count, one in row["workers"].items():
        shares = ", ".join(f"{share:.2f}" for share in one["by_worker"])
        lines.append(
            f"    {count} worker{'s' if count != '1' else ''}: {one['requests_per_s']:,.0f} req/s, {one['cpu_us']:.0f} us/req, cores: "
            f"workers {shares}; upstream {one['upstream_busy']:.2f}; load {one['load_busy']:.2f}; idle {one['idle']:.2f}"
        )
    return lines
