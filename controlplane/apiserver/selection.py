"""Label and field selectors of list and watch, compiled to one question about an object."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.apiserver import errors
from controlplane.apiserver.kinds import Kind
from controlplane.apiserver.request import ListOptions
from mesh.api.errors import SelectorError
from mesh.api.resources import (
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICES,
    Json,
)
from mesh.api.selectors import FieldSelector, parse_field_selector, parse_label_selector

_ALWAYS = frozenset({"metadata.name", "metadata.namespace"})
SELECTABLE: Mapping[tuple[str, str], frozenset[str]] = {
    PODS.key: frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    EVENTS.key: frozenset(
        {
            *(f"involvedObject.{f}" for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")),
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    NODES.key: frozenset({"spec.unschedulable"}),
    NAMESPACES.key: frozenset({"status.phase"}),
    SECRETS.key: frozenset({"type"}),
    SERVICES.key: frozenset({"spec.clusterIP", "spec.type"}),
    REPLICA_SETS.key: frozenset({"status.replicas"}),
    REPLICATION_CONTROLLERS.key: frozenset({"status.replicas"}),
}
"""Fields beyond name and namespace that each kind can be selected by. Source: Kubernetes "Field Selectors"."""
_FALSE_WHEN_UNSET = frozenset({"spec.unschedulable", "spec.hostNetwork"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a list or watch is about."""

    matches: Callable[[Json], bool] | None
    """None: all of them."""
    name: str = ""
    """Only the object of this name can match; "" if any can."""


EVERYTHING = Selection(None)


def selection_of(kind: Kind, options: ListOptions) -> Selection:
    """Compile the selectors. Raises ApiStatusError (400)."""
    if not options.label_selector and not options.field_selector:
        return EVERYTHING
    try:
        labels = parse_label_selector(options.label_selector)
    except SelectorError as exc:
        raise errors.bad_request(str(exc)) from exc
    fields = parse_fields(options.field_selector)
    _check_supported(kind, fields)

    def matches(obj: Json) -> bool:
        return labels.matches(obj["metadata"].get("labels") or {}) and fields.matches(lambda path: field(obj, path))

    return Selection(matches, selected_name(fields))


def parse_fields(text: str) -> FieldSelector:
    """A field selector. Raises ApiStatusError (400)."""
    try:
        return parse_field_selector(text)
    except SelectorError as exc:
        raise errors.bad_request(str(exc)) from exc


def selected_name(fields: FieldSelector) -> str:
    """The one name that can match; "" if any can."""
    names = (r.value for r in fields.requirements if r.path == "metadata.name" and r.is_equal)
    return next(names, "")


def _check_supported(kind: Kind, fields: FieldSelector) -> None:
    known = _ALWAYS | SELECTABLE.get(kind.resource.key, frozenset())
    for requirement in fields.requirements:
        if requirement.path not in known:
            raise errors.bad_request(
                f'field label not supported: "{requirement.path}"; {kind.resource.plural} can be selected by '
                f"{', '.join(sorted(known))}"
            )


def field(obj: Json, path: str) -> str:
    """A selectable field as text; "" when it is not set."""
    if path == "source":
        return str((obj.get("source") or {}).get("component", ""))
    value: object = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return "false" if path in _FALSE_WHEN_UNSET else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
