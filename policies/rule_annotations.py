"""What Istio has no field for, as annotations of a DestinationRule; they hold for all its clusters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from policies.checks import Findings
from policies.traffic import HealthCheck, LoadBalancing, TrafficSettings

LB_ANNOTATION = "meshwork.dev/lb"
"""`PEAK_EWMA`: Meshwork's sidecars pick by latency; other proxies use LEAST_REQUEST."""
HEALTH_CHECK_ANNOTATION = "meshwork.dev/health-check"
"""JSON: {"path": "/healthz", "host": "", "interval": "10s", "timeout": "1s", "healthyThreshold": 1, "unhealthyThreshold": 3};
without a path only a connection is made."""


class _HealthCheckText(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    path: str = ""
    host: str = ""
    interval: str = "10s"
    timeout: str = "1s"
    healthy_threshold: int = 1
    unhealthy_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnnotations:
    """The annotations of one rule."""

    uses_peak_ewma: bool = False
    health_check: HealthCheck | None = None

    def applied(
        self, settings: TrafficSettings, ports: Mapping[int, TrafficSettings], findings: Findings
    ) -> tuple[TrafficSettings, Mapping[int, TrafficSettings]]:
        """The settings of a cluster and of its ports with what the annotations say."""
        if self == RuleAnnotations():
            return settings, ports
        return self._one(settings, findings), {port: self._one(one, findings) for port, one in ports.items()}

    def _one(self, settings: TrafficSettings, findings: Findings) -> TrafficSettings:
        if self.uses_peak_ewma and settings.load_balancing is not LoadBalancing.LEAST_REQUEST:
            path = f"metadata.annotations[{LB_ANNOTATION}]"
            message = f"excludes loadBalancer {settings.load_balancing.value}, which is given too: remove one of them"
            if not any(error.path == path for error in findings.errors):
                findings.invalid(path, message)
        return replace(settings, uses_peak_ewma=self.uses_peak_ewma, health_check=self.health_check)


def read_annotations(annotations: Mapping[str, str], findings: Findings) -> RuleAnnotations:
    """Checked; wrong ones are left out."""
    balancer = annotations.get(LB_ANNOTATION)
    if balancer not in (None, "PEAK_EWMA"):
        path = f"metadata.annotations[{LB_ANNOTATION}]"
        findings.unsupported(path, f'"{balancer}": use PEAK_EWMA, or loadBalancer for the others')
    text = annotations.get(HEALTH_CHECK_ANNOTATION)
    return RuleAnnotations(
        uses_peak_ewma=balancer == "PEAK_EWMA",
        health_check=None if text is None else _health_check(text, findings),
    )


def _health_check(text: str, findings: Findings) -> HealthCheck | None:
    path = f"metadata.annotations[{HEALTH_CHECK_ANNOTATION}]"
    try:
        wanted = msgspec.json.decode(text.encode(), type=_HealthCheckText)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        findings.invalid(path, f'{exc}: write JSON such as {{"path": "/healthz", "interval": "10s", "timeout": "1s"}}')
        return None
    if wanted.path and (not wanted.path.startswith("/") or re.search(r"[\s\x00-\x1f]", wanted.path)):
        findings.invalid(f"{path}.path", f'"{wanted.path}": a path starts with "/" and has no spaces')
    if any(c in wanted.host for c in " /\r\n"):
        findings.invalid(f"{path}.host", f'"{wanted.host}" is no host')
    findings.between(f"{path}.healthyThreshold", wanted.healthy_threshold, 1, 1000)
    findings.between(f"{path}.unhealthyThreshold", wanted.unhealthy_threshold, 1, 1000)
    default = HealthCheck()
    return HealthCheck(
        path=wanted.path,
        host=wanted.host,
        interval_s=findings.duration(f"{path}.interval", wanted.interval) or default.interval_s,
        timeout_s=findings.duration(f"{path}.timeout", wanted.timeout) or default.timeout_s,
        healthy_threshold=wanted.healthy_threshold,
        unhealthy_threshold=wanted.unhealthy_threshold,
    )
