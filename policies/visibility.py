"""exportTo: whose proxies see a policy."""

from collections.abc import Sequence

from policies.checks import Findings
from policies.values import EVERYWHERE, Visibility


def compile_visibility(export_to: Sequence[str], namespace: str, findings: Findings) -> Visibility:
    """`*` (or nothing) is every namespace, `.` the policy's own; other entries are names of namespaces."""
    if not export_to or "*" in export_to:
        if len(export_to) > 1:
            findings.invalid("spec.exportTo", '"*" already means every namespace: leave it alone or remove it')
        return EVERYWHERE
    for index, entry in enumerate(export_to):
        if entry != "." and not entry.replace("-", "").isalnum():
            findings.invalid(f"spec.exportTo[{index}]", f'"{entry}" is no namespace: use a name, "." or "*"')
    return Visibility(namespaces=frozenset(namespace if entry == "." else entry for entry in export_to))
