"""The filters' part of the metrics page."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from mesh.telemetry.exposition import Exposition, label_text
from sidecar.filters.counts import FilterCount
from sidecar.filters.site_state import SiteState

_HELP: Final = {
    FilterCount.CORS_VALID: "Requests of origins that are allowed.",
    FilterCount.CORS_INVALID: "Requests of origins that are not allowed.",
    FilterCount.FAULT_DELAYS: "Requests delayed on purpose.",
    FilterCount.FAULT_ABORTS: "Requests answered with an error on purpose.",
    FilterCount.FAULT_OVERFLOW: "Requests spared because too many faults were under way.",
    FilterCount.LIMIT_ENABLED: "Requests that the local rate limit looked at.",
    FilterCount.LIMIT_OK: "Requests that got a token.",
    FilterCount.LIMIT_LIMITED: "Requests that got no token.",
    FilterCount.LIMIT_ENFORCED: "Requests refused for lack of a token.",
    FilterCount.ADAPTIVE_BLOCKED: "Requests beyond the adaptive concurrency limit.",
    FilterCount.SESSION_KEPT: "Requests that went to their session's endpoint.",
    FilterCount.SESSION_MOVED: "Requests whose session was given an endpoint.",
    FilterCount.MIRROR_SENT: "Copies of requests sent.",
    FilterCount.MIRROR_ANSWERED: "Copies of requests answered.",
    FilterCount.MIRROR_FAILED: "Copies of requests that got no answer.",
    FilterCount.MIRROR_DROPPED: "Copies of requests not sent.",
}


def render_filters(
    page: Exposition, counts: Mapping[tuple[FilterCount, str], int], sites: Iterable[tuple[str, SiteState]]
) -> None:
    """Counters that have been used, and gauges of the sites: (stat prefix, what its filters remember)."""
    families: defaultdict[FilterCount, list[tuple[str, int]]] = defaultdict(list)
    for (count, label), value in counts.items():
        families[count].append((label, value))
    for count, samples in families.items():
        name, label_name = count.value
        page.family(name, "counter", _HELP[count])
        for label, value in samples:
            page.sample(name, label_text({label_name: label}), value)
    _gauges(page, list(sites))


def _gauges(page: Exposition, sites: list[tuple[str, SiteState]]) -> None:
    faults: defaultdict[str, int] = defaultdict(int)
    rows: dict[str, dict[str, float]] = {}
    for prefix, state in sites:
        faults[prefix] += state.faults_active
        limit = state.adaptive
        if limit is not None:
            rows[prefix] = {
                "concurrency_limit": limit.limit,
                "min_rtt_calculation_active": int(limit.is_measuring),
                "min_rtt_msecs": limit.min_rtt_s * 1000.0,
                "sample_rtt_msecs": limit.sample_rtt_s * 1000.0,
            }
    if any(faults.values()):
        page.family("envoy_http_fault_active_faults", "gauge", "Faults under way.")
        for prefix, value in faults.items():
            page.sample("envoy_http_fault_active_faults", _prefix(prefix), value)
    for name in sorted({name for row in rows.values() for name in row}):
        full = f"envoy_http_adaptive_concurrency_gradient_controller_{name}"
        page.family(full, "gauge", "Adaptive concurrency.")
        for prefix, row in rows.items():
            page.sample(full, _prefix(prefix), row[name])


def _prefix(prefix: str) -> str:
    return label_text({"envoy_http_conn_manager_prefix": prefix})
