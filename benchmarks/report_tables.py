"""Results as Markdown. Pure: JSON documents in, text out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.data_plane.cases import PEERS
from benchmarks.data_plane.goals import State, check
from benchmarks.data_plane.tables import doubts

Document = Mapping[str, Any]
NAMES = {"meshwork": "Meshwork", "envoy": "Envoy", "haproxy": "HAProxy", "nginx": "nginx", "direct": "no proxy"}
GROUPS = (
    ("heads", "One hop, all features, 32 connections, 61-byte body"),
    ("plain", "One hop without features"),
    ("two_hops", "Two hops: two proxies of one kind in a row"),
    ("connections", "Connections"),
    ("download", "Bodies to the client"),
    ("upload", "Bodies to the upstream"),
    ("churn", "A connection for each request"),
    ("routes", "Routes"),
    ("latency", "Latency at a fixed rate"),
    ("memory", "Resident memory"),
    ("workers", "Workers"),
    ("matching", "Finding a route, without network"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def data_plane_page(document: Document, pictures: Mapping[str, str]) -> list[str]:
    """The data plane's part of the page. `pictures`: group -> file name."""
    machine, versions = document["machine"], document["versions"]
    parts = [
        "## Data plane",
        document["what"],
        "`make bench` runs a quick choice of cases, `python -m benchmarks data_plane --full --rounds 5 --seconds 3` all of them in about "
        "35 minutes, `--only CASE ...` some (`--list` names them). Let the machine be idle meanwhile.",
        f"Machine: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "The proxies have a core to themselves; upstream (nginx) and load generator share another, or have one each where there are "
        "more. `busy` counts cores' worth of CPU time in the window: proxy, upstream, load generator; a party at its limit is named. "
        "When that is not the proxy, requests per second say little about it and CPU per request everything. Cases with one set-up share "
        "processes, so resident memory includes what the cases before left.",
        *([f"**{doubts(document['cases'])}**"] if doubts(document["cases"]) else []),
        "### Goals",
        _goals(document["cases"]),
        "### What is not alike",
        "\n".join(f"- **{NAMES[peer]}**: {text}" for peer, text in document["differences"].items()),
    ]
    for group, title in GROUPS:
        cases = {name: record for name, record in document["cases"].items() if name.partition("/")[0] == group}
        if cases:
            parts.append(f"### {title}")
            parts += [f"![{title}]({pictures[group]})"] if group in pictures else []
            parts += _group(cases)
    return parts


def _goals(cases: Document) -> str:
    rows = []
    for verdict in check(cases):
        sign = verdict.sign.replace("<=", "≤").replace(">=", "≥")
        value = "" if verdict.value is None else f"{verdict.value:,.2f} {verdict.goal.unit}"
        bound = "" if verdict.limit is None else f"{sign} {verdict.limit:,.2f}"
        state = f"**{verdict.state.value}**" if verdict.state is State.MISSED else verdict.state.value
        rows.append([verdict.goal.name, value, bound, state + (f": {verdict.note}" if verdict.note else "")])
    return table(["goal", "measured", "bound", ""], rows)


def _group(cases: Mapping[str, Document]) -> list[str]:
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(record["command"] for record in cases.values()))
    parts = [f"`{name}` failed: {record['failed']}" for name, record in cases.items() if "failed" in record]
    good = [record for record in cases.values() if "failed" not in record]
    if good:
        parts += _TABLES[good[0]["kind"]](good)
    return [*parts, f"Measured by {commands}."]


def _closed_loop(records: Sequence[Document]) -> list[str]:
    head = [
        "",
        "CPU µs/request",
        "× Envoy",
        "× HAProxy",
        "requests/s",
        "MiB/s",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "busy",
        "limit",
    ]
    rows = [
        [
            f"{record['title']}, {NAMES[peer]}",
            f"{row['cpu_us']:,.1f}",
            _ratio(row["cpu_ratio"], "envoy"),
            _ratio(row["cpu_ratio"], "haproxy"),
            f"{row['requests_per_s']:,}",
            f"{row['mib_per_s']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['rss_mib']:.0f}",
            " / ".join(f"{row['busy'][party]:.2f}" for party in ("proxy", "upstream", "load")),
            row["limit"],
        ]
        for record in records
        for peer, row in record["peers"].items()
    ]
    return [table(head, rows), *_traced(records)]


def _traced(records: Sequence[Document]) -> list[str]:
    """Says how many spans arrived, which shows that tracing was on."""
    found = {
        NAMES[peer]: statistics.mean(record["peers"][peer]["spans_per_1000"] for record in records)
        for peer in ("meshwork", "envoy")
    }
    if not any(found.values()):
        return []
    return [
        f"Spans that reached the collector for 1,000 requests: {', '.join(f'{peer} {count:.1f}' for peer, count in found.items())}."
    ]


def _ratio(ratios: Mapping[str, float], reference: str) -> str:
    return f"{ratios[reference]:.2f}" if reference in ratios else ""


def _paced(records: Sequence[Document]) -> list[str]:
    head = [
        "",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "added p50",
        "added p99",
        "added p99.9",
        "CPU µs/request",
        "windows off pace",
    ]
    rows = []
    for record in records:
        for peer, row in record["peers"].items():
            times = [f"{row[key]:,.0f}" for key in ("p50_us", "p99_us", "p999_us")]
            added = [
                f"{row[key]:,.0f}" if key in row else "" for key in ("added_p50_us", "added_p99_us", "added_p999_us")
            ]
            cpu = f"{row['cpu_us']:.0f}" if row["cpu_us"] else ""
            off = f"{row['windows_off_pace']} of {record['rounds']}"
            rows.append([f"{record['title']}, {NAMES[peer]}", *times, *added, cpu, off])
    note = (
        "h2load sends at a fixed rate whatever the answers do. A window is off pace when requests did not leave at that rate, or so "
        "many answers took longer than their connection's turn that p99.9 may hide waiting. At 10,000 req/s requests come about ten "
        "at a time each millisecond."
    )
    return [table(head, rows), note]


def _memory(records: Sequence[Document]) -> list[str]:
    head = ["", "RSS MiB after the load", "× Envoy", "before the load", "listening after s"]
    rows = [
        [
            f"{record['title']}, {NAMES[peer]}",
            f"{row['rss_mib']:.1f}",
            f"{row['rss_ratio_to_envoy']:.2f}",
            f"{row['idle_mib']:.1f}",
            f"{row['start_s']:.1f}",
        ]
        for record in records
        for peer, row in record["peers"].items()
    ]
    return [
        table(head, rows),
        "Each cluster has three endpoints, a virtual host and a route, and served requests in the load. HAProxy and nginx are left out: "
        "they know backends, not clusters with outlier detection, retry policies and statistics each.",
    ]


def _workers(records: Sequence[Document]) -> list[str]:
    (record,) = records
    rows = []
    for peer, row in record["peers"].items():
        for count, one in row["workers"].items():
            shares = " + ".join(f"{share:.2f}" for share in one["by_worker"])
            speed_up = f"{row['speed_up']:.2f}" if count == "2" else ""
            figures = [f"{one['requests_per_s']:,.0f}", speed_up, f"{one['cpu_us']:.0f}", shares]
            others = [f"{one[key]:.2f}" for key in ("upstream_busy", "load_busy", "idle")]
            rows.append([f"{NAMES[peer]}, {count} worker{'s' if count != '1' else ''}", *figures, *others])
    head = ["", "requests/s", "× one worker", "CPU µs/request", "cores of each worker", "upstream", "load", "idle"]
    note = (
        f"{record['regex_routes']:,} routes by regular expression come before the one that matches, so that the workers are the limit and "
        f"not the load generator. All parties share {record['cores']} cores."
        if record["cores"] < 4
        else "Workers, upstream and load generator have cores of their own."
    )
    parts = [table(head, rows), note]
    return [*parts, f"Meshwork: not available, {record['unavailable']}."] if "unavailable" in record else parts


def _matching(records: Sequence[Document]) -> list[str]:
    rows = [
        [
            f"{int(count):,} route{'s' if count != '1' else ''}",
            f"{row['match_us']:,.2f}",
            f"{row['decode_and_compile_ms']:,.0f}",
        ]
        for count, row in records[0]["routes"].items()
    ]
    return [table(["", "µs for a match", "ms to decode and compile"], rows)]


_TABLES = {
    "closed_loop": _closed_loop,
    "paced": _paced,
    "memory": _memory,
    "workers": _workers,
    "matching": _matching,
}


def store_page(store: Document) -> list[str]:
    """The store's part of the page."""
    rows = [
        [
            f"{row['writers']} writers",
            *(
                f"{row[name]['per_second']:,.0f} ({row[name]['p50_ms']:.2f} / {row[name]['p99_ms']:.2f})"
                for name in ("meshwork", "etcd")
            ),
            f"{row['ratio']:.1f}",
        ]
        for row in store["table"]
    ]
    head = ["", "store, per second (p50 / p99 ms)", "etcd", "ratio"]
    about = (
        f"Durable compare-and-set transactions of {store['value_bytes']} bytes; {store['etcd']}, {store['cpus']} cores."
    )
    return ["## Store", about, table(head, rows)]


def cluster_page(cluster: Document) -> list[str]:
    """The whole cluster's part of the page."""
    rows = [
        [one["name"], f"{one['value']:g} {one['unit']}", f"≤ {one['goal']:g} {one['unit']}"]
        for one in cluster["figures"]
    ]
    return ["## Cluster", table(["", "measured", "goal"], rows)]


def summary(data_plane: Document | None, store: Document | None, cluster: Document | None) -> str:
    """The small table of the project's README.md."""
    parts = []
    if data_plane is not None:
        versions, machine = data_plane["versions"], data_plane["machine"]
        head = [f"{machine['cores']} cores, Linux {machine['kernel']}, Python {versions['python']}"]
        head += ["Meshwork", *(f"{NAMES[peer]} {_short(versions[peer])}" for peer in PEERS[1:])]
        parts.append(table(head, _summary_rows(data_plane["cases"])))
        parts.append("![CPU of the proxy per request](docs/benchmarks/cpu.png)")
    rows = [
        [one["name"], f"{one['value']:g} {one['unit']}"] for one in (cluster["figures"] if cluster is not None else ())
    ]
    if store is not None:
        at_16 = next(row for row in store["table"] if row["writers"] == 16)
        figures = f"{at_16['meshwork']['per_second']:,.0f} / {at_16['etcd']['per_second']:,.0f}"
        rows.append(["durable transactions per second, 16 writers: store / etcd", figures])
    if rows:
        parts.append(table(["", "measured"], rows))
    return "\n\n".join(parts)


def _short(version: str) -> str:
    """1.2.3-4 -> 1.2"""
    return ".".join(version.split(".")[:2])


_SUMMARY = (
    ("heads/repeat", "CPU per request, heads repeat", "cpu_us", "µs"),
    ("heads/unique", "CPU per request, every head unique", "cpu_us", "µs"),
    ("two_hops/unique", "the same through two hops", "cpu_us", "µs"),
    ("download/64KB", "64 KB bodies", "mib_per_s", "MiB/s"),
    ("latency/1000", "added p99 latency at 1,000 req/s", "added_p99_us", "µs"),
    ("memory/1000", "resident memory with 1,000 clusters", "rss_mib", "MiB"),
)


def _summary_rows(cases: Mapping[str, Document]) -> Iterable[list[str]]:
    for name, title, key, unit in _SUMMARY:
        record = cases.get(name, {"failed": ""})
        if "failed" not in record:
            rows = record["peers"]
            yield [title, *(_figure(rows, peer, key, unit) for peer in PEERS)]


def _figure(rows: Mapping[str, Document], peer: str, key: str, unit: str) -> str:
    """A peer's figure; ours with its ratio to Envoy."""
    if peer not in rows:
        return ""
    digits = 1 if unit == "µs" and abs(rows[peer][key]) < 100 else 0
    figure = f"{rows[peer][key]:,.{digits}f} {unit}"
    if peer != "meshwork":
        return figure
    ratio = _ratio_to_envoy(rows, key)
    return f"**{figure}**" if ratio is None else f"**{figure}** ({ratio:.2f}× Envoy)"


def _ratio_to_envoy(rows: Mapping[str, Document], key: str) -> float | None:
    own = rows["meshwork"]
    from_round = {"cpu_us": "cpu_ratio", "mib_per_s": "rate_ratio"}.get(key)
    if from_round is not None:
        value: float = own[from_round]["envoy"]
        return value
    reference = rows["envoy"][key]
    return own[key] / reference if reference > 0 else None
