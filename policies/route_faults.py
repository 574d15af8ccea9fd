"""Faults of a route: delays and aborts made on purpose."""

from mesh.api.networking import FaultAbort, FaultDelay, HttpFault, Percent
from policies.checks import Findings
from policies.values import Fault


def compile_fault(path: str, fault: HttpFault | None, findings: Findings) -> Fault | None:
    """None when there is none."""
    if fault is None:
        return None
    if fault.delay is None and fault.abort is None:
        findings.required(path, "give a delay, an abort, or both")
        return None
    delay = _delay(f"{path}.delay", fault.delay, findings) if fault.delay else None
    status = _abort(f"{path}.abort", fault.abort, findings) if fault.abort else None
    return Fault(
        delay_s=delay,
        delay_percent=_share(f"{path}.delay", fault.delay.percentage, findings) if fault.delay else 0.0,
        abort_status=status,
        abort_percent=_share(f"{path}.abort", fault.abort.percentage, findings) if fault.abort else 0.0,
    )


def _delay(path: str, delay: FaultDelay, findings: Findings) -> float | None:
    if not delay.fixed_delay:
        findings.required(f"{path}.fixedDelay", "say how long to wait, such as 2s")
    return findings.duration(f"{path}.fixedDelay", delay.fixed_delay)


def _abort(path: str, abort: FaultAbort, findings: Findings) -> int | None:
    if abort.grpc_status:
        findings.unsupported(f"{path}.grpcStatus", "gRPC is not routed as HTTP here: use httpStatus")
        return None
    if abort.http_status is None:
        findings.required(f"{path}.httpStatus", "say which status to answer, such as 503")
        return None
    findings.between(f"{path}.httpStatus", abort.http_status, 200, 599)
    return abort.http_status


def _share(path: str, percentage: Percent | None, findings: Findings) -> float:
    """DEVIATION: Istio takes a missing percentage for 0 and does nothing; a fault that never happens is refused here."""
    if percentage is None:
        findings.required(f"{path}.percentage", "say how many requests it hits, such as {value: 10}")
        return 0.0
    return findings.percent(f"{path}.percentage.value", percentage.value)
