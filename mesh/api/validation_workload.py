"""Deployment, ReplicaSet and ReplicationController."""

from typing import Any

from mesh.api.errors import FieldError, SelectorError, forbidden, invalid, not_supported, required
from mesh.api.int_or_string import is_percent
from mesh.api.resources import Json
from mesh.api.selectors import label_map_selector, label_selector_of
from mesh.api.tree import item_path
from mesh.api.validation_names import (
    check_choice,
    check_immutable,
    check_labels,
    check_qualified_name,
    check_range,
)
from mesh.api.validation_pod import check_pod_spec

_EXPRESSIONS = ("In", "NotIn", "Exists", "DoesNotExist")


def validate_deployment(deployment: Json, old: Json | None) -> list[FieldError]:
    """Selector, template, strategy; the selector stays."""
    spec = deployment.get("spec") or {}
    errors = _check_replicas(spec) + _check_selected_template(spec)
    errors += check_range(spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit", 0)
    errors += _check_strategy(spec.get("strategy") or {})
    deadline = spec.get("progressDeadlineSeconds")
    errors += check_range(deadline, "spec.progressDeadlineSeconds", 0)
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return errors + _check_kept_selector(spec, old)


def validate_replica_set(replica_set: Json, old: Json | None) -> list[FieldError]:
    """Selector and template; the selector stays."""
    spec = replica_set.get("spec") or {}
    return _check_replicas(spec) + _check_selected_template(spec) + _check_kept_selector(spec, old)


def validate_replication_controller(controller: Json, old: Json | None) -> list[FieldError]:
    """Selector and template."""
    spec = controller.get("spec") or {}
    errors = _check_replicas(spec)
    selector = spec.get("selector") or {}
    if not selector:
        errors.append(required("spec.selector"))
    errors += check_labels(selector, "spec.selector")
    template = spec.get("template")
    if not template:
        return [*errors, required("spec.template")]
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not label_map_selector(selector).matches(labels):
        detail = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, detail))
    return errors + _check_template(template)


def _check_replicas(spec: Json) -> list[FieldError]:
    errors = check_range(spec.get("replicas"), "spec.replicas", 0)
    return errors + check_range(spec.get("minReadySeconds"), "spec.minReadySeconds", 0)


def _check_kept_selector(spec: Json, old: Json | None) -> list[FieldError]:
    if old is None:
        return []
    return check_immutable(spec.get("selector"), (old.get("spec") or {}).get("selector"), "spec.selector")


def check_label_selector(selector: Json, path: str) -> list[FieldError]:
    """A structured label selector."""
    errors = check_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        place = item_path(f"{path}.matchExpressions", index)
        errors += check_qualified_name(expression.get("key"), f"{place}.key")
        operator = expression.get("operator")
        if operator not in _EXPRESSIONS:
            errors.append(not_supported(f"{place}.operator", operator, _EXPRESSIONS))
        elif operator in ("In", "NotIn") and not expression.get("values"):
            errors.append(required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and expression.get("values"):
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{place}.values", detail))
    return errors


def _check_selected_template(spec: Json) -> list[FieldError]:
    selector, template = spec.get("selector"), spec.get("template") or {}
    if selector is None:
        errors = [required("spec.selector")]
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors = [invalid("spec.selector", selector, "empty selector is invalid: it would select every pod")]
    else:
        errors = check_label_selector(selector, "spec.selector") or _check_match(selector, template)
    return errors + _check_template(template)


def _check_match(selector: Json, template: Json) -> list[FieldError]:
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        matches = label_selector_of(selector).matches(labels)
    except SelectorError as exc:
        return [invalid("spec.selector", selector, str(exc))]
    detail = "`selector` does not match template `labels`"
    return [] if matches else [invalid("spec.template.metadata.labels", labels, detail)]


def _check_template(template: Json) -> list[FieldError]:
    metadata = template.get("metadata") or {}
    errors = check_labels(metadata.get("labels"), "spec.template.metadata.labels")
    for key in metadata.get("annotations") or ():
        errors += check_qualified_name(key, "spec.template.metadata.annotations")
    spec = template.get("spec") or {}
    errors += check_pod_spec(spec, "spec.template.spec")
    errors += check_choice(spec.get("restartPolicy"), "spec.template.spec.restartPolicy", ("Always",))
    if spec.get("activeDeadlineSeconds") is not None:
        errors.append(
            forbidden("spec.template.spec.activeDeadlineSeconds", "not allowed in a workload that keeps pods up")
        )
    return errors


def _check_strategy(strategy: Json) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    errors = check_choice(kind, "spec.strategy.type", ("RollingUpdate", "Recreate"))
    if kind == "Recreate" and rolling is not None:
        errors.append(
            forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        )
    if kind != "RollingUpdate" or rolling is None:
        return errors
    path = "spec.strategy.rollingUpdate"
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors += _check_share(unavailable, f"{path}.maxUnavailable", at_most_all=True)
    errors += _check_share(surge, f"{path}.maxSurge", at_most_all=False)
    if not errors and _is_zero(unavailable) and _is_zero(surge):
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    return errors


def _check_share(value: Any, path: str, *, at_most_all: bool) -> list[FieldError]:
    if value is None or (isinstance(value, int) and value >= 0):
        return []
    if not is_percent(value):
        return [invalid(path, value, "must be a number of at least 0 or a percentage such as 25%")]
    if at_most_all and int(value[:-1]) > 100:
        return [invalid(path, value, "must not be greater than 100%")]
    return []


def _is_zero(value: Any) -> bool:
    return value == 0 or (isinstance(value, str) and is_percent(value) and int(value[:-1]) == 0)
