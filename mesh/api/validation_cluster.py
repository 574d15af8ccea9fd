"""Node, Event, Lease and CustomResourceDefinition."""

import ipaddress
import re

from mesh.api.errors import FieldError, SchemaError, invalid, required
from mesh.api.quantity import parse_quantity
from mesh.api.resources import Json
from mesh.api.schema_node import SchemaCompiler
from mesh.api.tree import child_path, item_path
from mesh.api.validation_names import (
    check_choice,
    check_dns_1035_label,
    check_dns_subdomain,
    check_immutable,
    check_qualified_name,
    check_range,
    check_unique,
)
from mesh.api.validation_resources import check_quantity

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_VERSION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def validate_node(node: Json, old: Json | None) -> list[FieldError]:
    """Taints, pod networks and amounts."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    errors: list[FieldError] = []
    taints = spec.get("taints") or []
    for index, taint in enumerate(taints):
        path = item_path("spec.taints", index)
        errors += check_qualified_name(taint.get("key"), f"{path}.key")
        errors += check_choice(taint.get("effect") or "", f"{path}.effect", TAINT_EFFECTS)
    errors += check_unique(((t.get("key"), t.get("effect")) for t in taints), "spec.taints")
    for index, cidr in enumerate(spec.get("podCIDRs") or ()):
        errors += _check_cidr(cidr, item_path("spec.podCIDRs", index))
    if spec.get("podCIDR"):
        errors += _check_cidr(spec["podCIDR"], "spec.podCIDR")
    for field in ("capacity", "allocatable"):
        for name, amount in (status.get(field) or {}).items():
            path = child_path(f"status.{field}", name)
            errors += check_quantity(amount, path)
    if not errors and old is not None and (old.get("spec") or {}).get("podCIDR"):
        errors += check_immutable(spec.get("podCIDR"), old["spec"]["podCIDR"], "spec.podCIDR")
    if not errors:
        errors += _check_allocatable(status)
    return errors


def _check_allocatable(status: Json) -> list[FieldError]:
    capacity = status.get("capacity") or {}
    return [
        invalid(child_path("status.allocatable", name), amount, f"must not be more than the capacity, {capacity[name]}")
        for name, amount in (status.get("allocatable") or {}).items()
        if name in capacity and parse_quantity(amount) > parse_quantity(capacity[name])
    ]


def _check_cidr(value: str, path: str) -> list[FieldError]:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return [invalid(path, value, "must be a network in CIDR notation, such as 10.244.1.0/24")]
    return []


def validate_event(event: Json, old: Json | None) -> list[FieldError]:
    """An event lives in its object's namespace."""
    about = (event.get("involvedObject") or {}).get("namespace") or "default"
    namespace = (event.get("metadata") or {}).get("namespace")
    if about == namespace:
        return []
    return [invalid("involvedObject.namespace", about, f"does not match event.namespace, {namespace}")]


def validate_lease(lease: Json, old: Json | None) -> list[FieldError]:
    """Durations and counts."""
    spec = lease.get("spec") or {}
    errors = check_range(spec.get("leaseDurationSeconds"), "spec.leaseDurationSeconds", 1)
    return errors + check_range(spec.get("leaseTransitions"), "spec.leaseTransitions", 0)


def validate_custom_resource_definition(definition: Json, old: Json | None) -> list[FieldError]:
    """Names, versions, and schemas that compile."""
    spec = definition.get("spec") or {}
    names, versions = spec.get("names") or {}, spec.get("versions") or []
    group, plural = spec.get("group") or "", names.get("plural") or ""
    errors = check_dns_subdomain(group, "spec.group")
    if group and "." not in group:
        errors.append(invalid("spec.group", group, "must be a domain of your own, with at least one dot"))
    errors += check_choice(spec.get("scope") or "", "spec.scope", ("Cluster", "Namespaced"))
    errors += check_dns_1035_label(plural, "spec.names.plural")
    errors += check_dns_1035_label(str(names.get("kind") or "").lower(), "spec.names.kind")
    for index, name in enumerate(names.get("shortNames") or ()):
        errors += check_dns_1035_label(name, item_path("spec.names.shortNames", index))
    wanted = f"{plural}.{group}"
    if definition["metadata"].get("name") != wanted:
        detail = f'must be spec.names.plural+"."+spec.group, here "{wanted}"'
        errors.append(invalid("metadata.name", definition["metadata"].get("name"), detail))
    strategy = (spec.get("conversion") or {}).get("strategy")
    errors += check_choice(strategy, "spec.conversion.strategy", ("None",))
    errors += _check_versions(versions)
    if old is not None:
        errors += _check_kept_names(spec, old.get("spec") or {})
    return errors


def _check_versions(versions: list[Json]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not versions:
        return [required("spec.versions")]
    if sum(1 for version in versions if version.get("storage")) != 1:
        errors.append(
            invalid("spec.versions", len(versions), "must have exactly one version marked as storage version")
        )
    errors += check_unique((version.get("name") for version in versions), "spec.versions", "name")
    for index, version in enumerate(versions):
        path = item_path("spec.versions", index)
        if not _VERSION.fullmatch(str(version.get("name") or "")):
            errors.append(invalid(f"{path}.name", version.get("name"), "must be a DNS label such as v1 or v1beta1"))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            errors.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
            continue
        errors += _check_schema(schema, f"{path}.schema.openAPIV3Schema")
    return errors


def _check_schema(schema: Json, path: str) -> list[FieldError]:
    if schema.get("type") != "object":
        return [invalid(f"{path}.type", schema.get("type"), "must be object at the root")]
    try:
        SchemaCompiler({}).compile(schema, path, is_custom=True)
    except SchemaError as exc:
        return [FieldError(path, "FieldValueInvalid", f"Invalid value: {exc}")]
    return []


def _check_kept_names(spec: Json, old: Json) -> list[FieldError]:
    errors = check_immutable(spec.get("group"), old.get("group"), "spec.group")
    errors += check_immutable(spec.get("scope"), old.get("scope"), "spec.scope")
    for field in ("plural", "kind"):
        new_name, old_name = (part.get("names", {}).get(field) for part in (spec, old))
        errors += check_immutable(new_name, old_name, f"spec.names.{field}")
    return errors
