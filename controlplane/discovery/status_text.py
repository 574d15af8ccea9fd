"""Verdicts as the status of policies. Pure."""

from collections.abc import Iterable, Mapping

from controlplane.discovery.verdicts import ParentVerdict, Verdict
from mesh.api.gateway import ParentReference, RouteParentStatus
from mesh.api.meta import Condition
from mesh.api.resources import Json

CONTROLLER = "meshwork.dev/discovery"
"""Whose entries in an HTTPRoute's status are ours."""
Finding = tuple[str, str, str]
"""(status, reason, message) of a condition."""
NOT_ACCEPTED: Finding = ("False", "NotAccepted", "this generation is not accepted, see the condition Accepted")
CurrentStatus = tuple[Condition | RouteParentStatus, ...]
"""What is written now: the conditions of a policy, or the parents of an HTTPRoute."""


def render_status(verdict: Verdict, programmed: Finding, current: CurrentStatus, now: str) -> Json:
    """The status to write; what other controllers wrote about their parents is kept."""
    if not verdict.parents:
        old = {item.type: item for item in current if isinstance(item, Condition)}
        findings = {"Accepted": _accepted(verdict), "Programmed": programmed}
        conditions = _conditions(findings, verdict.generation, old, now)
        return {"observedGeneration": verdict.generation, "conditions": conditions}
    known = [item for item in current if isinstance(item, RouteParentStatus)]
    ours = [_parent(parent, verdict.generation, programmed, known, now) for parent in verdict.parents]
    return {"parents": [*(_kept(item) for item in known if item.controller_name != CONTROLLER), *ours]}


def _parent(
    parent: ParentVerdict, generation: int, programmed: Finding, known: Iterable[RouteParentStatus], now: str
) -> Json:
    reason, message = parent.unresolved
    findings = {
        "Accepted": _accepted(parent),
        "ResolvedRefs": ("False", reason, message) if reason else ("True", "ResolvedRefs", ""),
        "Programmed": programmed if parent.is_accepted else NOT_ACCEPTED,
    }
    mine = (item for item in known if item.controller_name == CONTROLLER and item.parent_ref == parent.ref)
    old = {condition.type: condition for item in mine for condition in item.conditions}
    conditions = _conditions(findings, generation, old, now)
    return {"parentRef": _reference(parent.ref), "controllerName": CONTROLLER, "conditions": conditions}


def _accepted(verdict: Verdict | ParentVerdict) -> Finding:
    return "True" if verdict.is_accepted else "False", verdict.reason, verdict.message


def _conditions(findings: Mapping[str, Finding], generation: int, old: Mapping[str, Condition], now: str) -> list[Json]:
    return [_condition(type_, finding, generation, old.get(type_), now) for type_, finding in findings.items()]


def _condition(type_: str, finding: Finding, generation: int, old: Condition | None, now: str) -> Json:
    status, reason, message = finding
    same = old is not None and old.status == status and bool(old.last_transition_time)
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": old.last_transition_time if same and old is not None else now,
    }


def _kept(item: RouteParentStatus) -> Json:
    written = ("type", "status", "reason", "message", "observedGeneration", "lastTransitionTime")
    conditions = [condition.to_json() for condition in item.conditions]
    return {
        "parentRef": _reference(item.parent_ref),
        "controllerName": item.controller_name,
        "conditions": [{name: condition[name] for name in written} for condition in conditions],
    }


def _reference(ref: ParentReference) -> Json:
    """What is set, and always group and kind."""
    values = ref.to_json()
    return {name: value for name, value in values.items() if value or name in ("group", "kind")}


def says_the_same(desired: Json, current: CurrentStatus) -> bool:
    """Whether writing `desired` would tell a reader nothing new (the number of proxies in a message does not count)."""
    if "parents" not in desired:
        return _said(desired["conditions"]) == _said(item.to_json() for item in current if isinstance(item, Condition))
    known = [item for item in current if isinstance(item, RouteParentStatus)]
    return [_said_of_parent(parent) for parent in desired["parents"]] == [_said_of_parent(_kept(i)) for i in known]


def _said_of_parent(parent: Json) -> tuple[Json, str, Json]:
    return parent["parentRef"], parent["controllerName"], _said(parent["conditions"])


def _said(conditions: Iterable[Json]) -> Json:
    return {
        c["type"]: (c["status"], c["reason"], c["observedGeneration"], _stable(c["reason"], c["message"]))
        for c in conditions
    }


def _stable(reason: str, message: str) -> str:
    return "" if reason == "Programmed" else message
