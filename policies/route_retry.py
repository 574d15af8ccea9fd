"""The retries of a route."""

from collections.abc import Mapping, Sequence

from mesh.api.networking import HttpRetry
from mesh.resilience.retry import GRPC_RETRY_ON_NAMES, RETRY_ON_NAMES
from policies.checks import Findings
from policies.headers import check_header_name
from policies.values import DEFAULT_RETRY, SAFE_RETRY_ON, Retry

MAX_ATTEMPTS = 10
"""Source: ours; more only multiplies the load on a service that is down."""
RETRIABLE_HEADERS_ANNOTATION = "meshwork.dev/retriable-headers"
"""On a VirtualService: `x-retry, x-again`, the answers' headers that the condition retriable-headers looks for."""
CONDITIONS = frozenset(
    {*RETRY_ON_NAMES, *GRPC_RETRY_ON_NAMES, "envoy-ratelimited", "retriable-headers", "http3-post-connect-failure"}
)
"""Source: Envoy router filter, x-envoy-retry-on and x-envoy-retry-grpc-on."""


def compile_retry(
    path: str, retry: HttpRetry | None, findings: Findings, *, retriable_headers: Sequence[str] = ()
) -> Retry:
    """None means Meshwork's default; `attempts: 0` switches retries off."""
    if retry is None:
        return DEFAULT_RETRY
    findings.between(f"{path}.attempts", retry.attempts, 0, MAX_ATTEMPTS)
    if retry.retry_remote_localities:
        message = "a retry stays in the priority that is in use, on another host: remove this, or give false"
        findings.unsupported(f"{path}.retryRemoteLocalities", message)
    names, statuses = _conditions(f"{path}.retryOn", retry.retry_on, findings)
    if "retriable-headers" in names and not retriable_headers:
        advice = (
            f'needs the names of headers: list them in the annotation {RETRIABLE_HEADERS_ANNOTATION}, such as "x-retry"'
        )
        findings.invalid(f"{path}.retryOn", f"retriable-headers {advice}")
    return Retry(
        attempts=retry.attempts,
        per_try_timeout_s=findings.duration(f"{path}.perTryTimeout", retry.per_try_timeout, zero=True) or None,
        retry_on=tuple(dict.fromkeys(names)) or (() if statuses else SAFE_RETRY_ON),
        statuses=tuple(dict.fromkeys(statuses)),
        headers=tuple(retriable_headers) if "retriable-headers" in names else (),
        back_off_s=findings.duration(f"{path}.backoff", retry.backoff),
        prefers_new_hosts=retry.retry_ignore_previous_hosts,
    )


def _conditions(path: str, text: str, findings: Findings) -> tuple[list[str], list[int]]:
    names: list[str] = []
    statuses: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        if part.isdecimal():
            findings.between(path, int(part), 100, 599)
            statuses.append(int(part))
        elif part in CONDITIONS:
            names.append(part)
        elif part:
            known = ", ".join(sorted(CONDITIONS))
            findings.unsupported(path, f'"{part}" is not known: use {known}, or status codes')
    if "retriable-status-codes" in names and not statuses:
        findings.invalid(path, "retriable-status-codes needs the codes: list them too, such as 503")
    return names, statuses


def retriable_headers_of(annotations: Mapping[str, str], findings: Findings) -> tuple[str, ...]:
    """The header names in the annotation, lower case; empty when there is none."""
    text = annotations.get(RETRIABLE_HEADERS_ANNOTATION)
    if text is None:
        return ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_header_name(f"metadata.annotations[{RETRIABLE_HEADERS_ANNOTATION}]", name, findings)
    return tuple(name.lower() for name in names)
