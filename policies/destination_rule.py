"""DestinationRule -> how a host's clusters are used, and its subsets."""

from collections.abc import Mapping

from mesh.api.networking import DestinationRule, Subset
from mesh.api.selectors import is_label_key, is_label_value
from mesh.api.traffic_policy import PortTrafficPolicy, TrafficPolicy
from policies.checks import Findings
from policies.errors import Problems
from policies.hosts import resolve_host
from policies.provenance import provenance_of
from policies.registry import Registry
from policies.rule_annotations import RuleAnnotations, read_annotations
from policies.traffic import DEFAULT_SETTINGS, CompiledDestinationRule, CompiledSubset, TrafficSettings
from policies.traffic_policy import compile_traffic
from policies.visibility import compile_visibility

KIND = "DestinationRule"
_Policy = TrafficPolicy | PortTrafficPolicy


def compile_destination_rule(rule: DestinationRule, registry: Registry) -> CompiledDestinationRule | Problems:
    """The rule, or everything that is wrong with it."""
    findings = Findings()
    host = _host(rule, registry, findings)
    policy = rule.spec.traffic_policy
    annotations = read_annotations(rule.metadata.annotations, findings)
    settings, port_settings = annotations.applied(*_settings("spec.trafficPolicy", policy, None, findings), findings)
    visibility = compile_visibility(rule.spec.export_to, rule.metadata.namespace, findings)
    subsets = _subsets(rule, annotations, findings)
    if findings.errors:
        return Problems(provenance_of(KIND, rule.metadata), tuple(findings.errors))
    return CompiledDestinationRule(
        key=rule.key,
        generation=rule.metadata.generation,
        created=rule.metadata.creation_timestamp,
        host=host,
        settings=settings,
        port_settings=port_settings,
        subsets=subsets,
        visibility=visibility,
        provenance=provenance_of(KIND, rule.metadata, "spec.trafficPolicy" if policy else ""),
    )


def _host(rule: DestinationRule, registry: Registry, findings: Findings) -> str:
    if not rule.spec.host:
        findings.required("spec.host", "name the service this rule is for")
        return ""
    host = resolve_host(rule.spec.host, rule.metadata.namespace, registry.ports, registry.domain)
    if "*" in host:
        findings.unsupported("spec.host", f'"{host}": wildcards are not supported here; name one service')
    elif problem := registry.host_problem(host):
        findings.invalid("spec.host", problem)
    return host


def _subsets(rule: DestinationRule, annotations: RuleAnnotations, findings: Findings) -> Mapping[str, CompiledSubset]:
    compiled: dict[str, CompiledSubset] = {}
    for index, subset in enumerate(rule.spec.subsets):
        path = f"spec.subsets[{index}]"
        _check_subset(path, subset, compiled, findings)
        own = _settings(f"{path}.trafficPolicy", subset.traffic_policy, rule.spec.traffic_policy, findings)
        settings, port_settings = annotations.applied(*own, findings)
        compiled[subset.name] = CompiledSubset(
            name=subset.name,
            labels=tuple(sorted(subset.labels.items())),
            settings=settings,
            port_settings=port_settings,
            provenance=provenance_of(KIND, rule.metadata, path),
        )
    return compiled


def _check_subset(path: str, subset: Subset, earlier: Mapping[str, CompiledSubset], findings: Findings) -> None:
    if not subset.name:
        findings.required(f"{path}.name", "give the subset a name for routes to refer to")
    elif subset.name in earlier:
        findings.duplicate(f"{path}.name", f'subset "{subset.name}" is defined twice: rename one')
    elif not subset.name.replace("-", "").replace(".", "").isalnum():
        findings.invalid(f"{path}.name", f'"{subset.name}": use letters, digits, "-" and "."')
    for key, value in subset.labels.items():
        if not is_label_key(key) or not is_label_value(value):
            findings.invalid(f"{path}.labels", f'"{key}: {value}" is not a label: no pod can carry it')


def _settings(
    path: str, policy: TrafficPolicy | None, base: TrafficPolicy | None, findings: Findings
) -> tuple[TrafficSettings, Mapping[int, TrafficSettings]]:
    """Settings of the cluster and of single ports. A subset's policy overrides its rule's field by field; a port's stands alone.

    Source: istio.io, TrafficPolicy ("traffic settings specified at the destination-level will not be inherited").
    """
    ports: dict[int, TrafficSettings] = {}
    for source, sink in ((base, Findings()), (policy, findings)):  # the base's own errors are reported where it stands
        for index, entry in enumerate(source.port_level_settings if source else ()):
            entry_path = f"{path}.portLevelSettings[{index}]"
            sink.port(f"{entry_path}.port.number", entry.port.number)
            ports[entry.port.number] = _one(entry_path, entry, None, sink)
    return _one(path, policy, base, findings), ports


def _one(path: str, policy: _Policy | None, base: TrafficPolicy | None, findings: Findings) -> TrafficSettings:
    if policy is None:
        return DEFAULT_SETTINGS if base is None else _one(path, base, None, Findings())
    inherited = base or TrafficPolicy()
    own = _merge(path, policy, policy, findings)
    if base is None:
        return own
    return _merge(path, policy, inherited, Findings())


def _merge(path: str, policy: _Policy, base: _Policy, findings: Findings) -> TrafficSettings:
    """Each of the groups from `policy`, or from `base` where `policy` leaves it out."""
    merged = TrafficPolicy(
        load_balancer=policy.load_balancer or base.load_balancer,
        connection_pool=policy.connection_pool or base.connection_pool,
        outlier_detection=policy.outlier_detection or base.outlier_detection,
        retry_budget=policy.retry_budget or base.retry_budget,
    )
    return compile_traffic(path, merged, findings)
