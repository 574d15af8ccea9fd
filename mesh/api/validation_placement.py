"""Where a pod may run: node selector, affinity, tolerations."""

import re
from typing import Any

from mesh.api.errors import FieldError, forbidden, invalid, not_supported, required
from mesh.api.resources import Json
from mesh.api.tree import item_path
from mesh.api.validation_names import check_choice, check_labels, check_qualified_name, check_range

NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def check_node_selector_labels(selector: Any, path: str) -> list[FieldError]:
    """nodeSelector."""
    return check_labels(selector, path)


def check_affinity(affinity: Json, path: str) -> list[FieldError]:
    """Node affinity, required and preferred; pod (anti-)affinity terms name their topology."""
    errors: list[FieldError] = []
    node = affinity.get("nodeAffinity") or {}
    required_path = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    selector = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if selector is not None:
        terms = selector.get("nodeSelectorTerms") or []
        if not terms:
            errors.append(required(f"{required_path}.nodeSelectorTerms", "must have at least one node selector term"))
        for index, term in enumerate(terms):
            errors += _check_term(term, item_path(f"{required_path}.nodeSelectorTerms", index))
    preferred_path = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    for index, preferred in enumerate(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        place = item_path(preferred_path, index)
        errors += check_range(preferred.get("weight"), f"{place}.weight", 1, 100)
        errors += _check_term(preferred.get("preference") or {}, f"{place}.preference")
    for field in ("podAffinity", "podAntiAffinity"):
        terms = (affinity.get(field) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or []
        for index, term in enumerate(terms):
            place = f"{path}.{field}.requiredDuringSchedulingIgnoredDuringExecution[{index}].topologyKey"
            errors += check_qualified_name(term.get("topologyKey"), place)
    return errors


def _check_term(term: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        place = item_path(f"{path}.matchExpressions", index)
        errors += check_qualified_name(requirement.get("key"), f"{place}.key")
        errors += _check_requirement(requirement, place)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        place = item_path(f"{path}.matchFields", index)
        errors += check_choice(requirement.get("key") or "", f"{place}.key", ("metadata.name",))
        if requirement.get("operator") not in ("In", "NotIn"):
            errors.append(not_supported(f"{place}.operator", requirement.get("operator"), ("In", "NotIn")))
        elif len(requirement.get("values") or ()) != 1:
            errors.append(required(f"{place}.values", "must have one element"))
    return errors


def _check_requirement(requirement: Json, path: str) -> list[FieldError]:
    operator, values = requirement.get("operator"), requirement.get("values") or []
    match operator:
        case "In" | "NotIn":
            return [] if values else [required(f"{path}.values", f"must be specified when `operator` is '{operator}'")]
        case "Exists" | "DoesNotExist":
            detail = f"may not be specified when `operator` is '{operator}'"
            return [forbidden(f"{path}.values", detail)] if values else []
        case "Gt" | "Lt":
            if len(values) == 1 and _INTEGER.fullmatch(str(values[0])):
                return []
            return [required(f"{path}.values", "must be a single integer when `operator` is 'Gt' or 'Lt'")]
    return [not_supported(f"{path}.operator", operator, NODE_OPERATORS)]


def check_tolerations(tolerations: list[Json], path: str) -> list[FieldError]:
    """Operators, effects, and what they need."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        place = item_path(path, index)
        key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
        if key:
            errors += check_qualified_name(key, f"{place}.key")
        elif operator != "Exists":
            detail = "operator must be Exists when `key` is empty, which means 'match all values and all keys'"
            errors.append(invalid(f"{place}.operator", operator, detail))
        errors += check_choice(operator, f"{place}.operator", ("Equal", "Exists"))
        if operator == "Exists" and toleration.get("value"):
            errors.append(invalid(f"{place}.value", toleration["value"], "must be empty when `operator` is 'Exists'"))
        effect = toleration.get("effect") or None
        errors += check_choice(effect, f"{place}.effect", ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{place}.effect", effect, detail))
    return errors
