"""The retries of a route."""

from mesh.api.networking import HttpRetry
from mesh.resilience.retry import GRPC_RETRY_ON_NAMES, RETRY_ON_NAMES
from policies.checks import Findings
from policies.values import DEFAULT_RETRY, SAFE_RETRY_ON, Retry

MAX_ATTEMPTS = 10
"""Source: ours; more only multiplies the load on a service that is down."""


def compile_retry(path: str, retry: HttpRetry | None, findings: Findings) -> Retry:
    """None means Meshwork's default; `attempts: 0` switches retries off."""
    if retry is None:
        return DEFAULT_RETRY
    findings.between(f"{path}.attempts", retry.attempts, 0, MAX_ATTEMPTS)
    names: list[str] = []
    statuses: list[int] = []
    for part in (p.strip() for p in retry.retry_on.split(",")):
        if part.isdecimal():
            findings.between(f"{path}.retryOn", int(part), 100, 599)
            statuses.append(int(part))
        elif part in RETRY_ON_NAMES or part in GRPC_RETRY_ON_NAMES:
            names.append(part)
        elif part:
            known = ", ".join(sorted({*RETRY_ON_NAMES, *GRPC_RETRY_ON_NAMES}))
            findings.unsupported(f"{path}.retryOn", f'"{part}" is not known: use {known}, or status codes')
    if "retriable-status-codes" in names and not statuses:
        findings.invalid(f"{path}.retryOn", "retriable-status-codes needs the codes: list them too, such as 503")
    return Retry(
        attempts=retry.attempts,
        per_try_timeout_s=findings.duration(f"{path}.perTryTimeout", retry.per_try_timeout),
        retry_on=tuple(dict.fromkeys(names)) or (() if statuses else SAFE_RETRY_ON),
        statuses=tuple(dict.fromkeys(statuses)),
    )
