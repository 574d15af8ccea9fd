"""Containers: ports, environment, mounts, probes, hooks."""

from mesh.api.errors import NOT_FOUND, FieldError, duplicate, forbidden, invalid, not_supported, required
from mesh.api.resources import Json
from mesh.api.tree import item_path
from mesh.api.validation_names import (
    PROTOCOLS,
    check_choice,
    check_dns_label,
    check_dns_subdomain,
    check_one_of,
    check_port,
    check_port_name,
    check_port_number,
    check_range,
    check_unique,
)
from mesh.api.validation_resources import check_resources

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""What a fieldRef in env may name, besides metadata.labels['KEY'] and metadata.annotations['KEY']."""


def check_container(container: Json, path: str, volumes: frozenset[str], *, is_init: bool) -> list[FieldError]:
    """One container; `volumes` are the pod's. An init container without restartPolicy Always has no probes and hooks."""
    errors = check_dns_label(container.get("name"), f"{path}.name")
    image = container.get("image") or ""
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    errors += check_choice(container.get("imagePullPolicy"), f"{path}.imagePullPolicy", PULL_POLICIES)
    errors += check_choice(
        container.get("terminationMessagePolicy"),
        f"{path}.terminationMessagePolicy",
        ("File", "FallbackToLogsOnError"),
    )
    errors += _check_role(container, path, is_init=is_init)
    errors += _check_ports(container, path)
    errors += _check_env(container, path)
    errors += _check_mounts(container, path, volumes)
    errors += check_resources(container.get("resources") or {}, f"{path}.resources")
    for name in _PROBES:
        if container.get(name) is not None:
            errors += _check_probe(container[name], f"{path}.{name}", may_need_several=name == "readinessProbe")
    for name, handler in (container.get("lifecycle") or {}).items():
        place = f"{path}.lifecycle.{name}"
        errors += check_one_of(handler, place, ("exec", "httpGet", "sleep", "tcpSocket"), "handler type")
        errors += _check_handler(handler, place)
    return errors


def _check_role(container: Json, path: str, *, is_init: bool) -> list[FieldError]:
    policy = container.get("restartPolicy")
    if not is_init:
        return [forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")] if policy else []
    if policy is not None:
        return check_choice(policy, f"{path}.restartPolicy", ("Always",))
    return [
        forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
        for name in (*_PROBES, "lifecycle")
        if container.get(name)
    ]


def _check_ports(container: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    ports = container.get("ports") or []
    for index, port in enumerate(ports):
        place = item_path(f"{path}.ports", index)
        if port.get("name"):
            errors += check_port_name(port["name"], f"{place}.name")
        errors += check_port_number(port.get("containerPort"), f"{place}.containerPort")
        errors += check_range(port.get("hostPort"), f"{place}.hostPort", 0, 65535)
        errors += check_choice(port.get("protocol"), f"{place}.protocol", PROTOCOLS)
    return errors + check_unique((port.get("name") or None for port in ports), f"{path}.ports", "name")


def _check_env(container: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(container.get("env") or ()):
        place = item_path(f"{path}.env", index)
        name = variable.get("name") or ""
        if not name:
            errors.append(required(f"{place}.name"))
        elif "=" in name or not name.isprintable() or not name.isascii():
            errors.append(invalid(f"{place}.name", name, "must be printable ASCII characters without '='"))
        source = variable.get("valueFrom")
        if source is not None:
            errors += _check_env_source(source, f"{place}.valueFrom")
            if variable.get("value"):
                errors.append(invalid(f"{place}.valueFrom", "", "may not be specified when `value` is not empty"))
    for index, variables in enumerate(container.get("envFrom") or ()):
        place = item_path(f"{path}.envFrom", index)
        errors += check_one_of(variables, place, ("configMapRef", "secretRef"), "source")
        for name in ("configMapRef", "secretRef"):
            if variables.get(name) is not None:
                errors += check_dns_subdomain(variables[name].get("name"), f"{place}.{name}.name")
    return errors


def _check_env_source(source: Json, path: str) -> list[FieldError]:
    errors = check_one_of(source, path, _ENV_SOURCES, "source")
    for name in ("configMapKeyRef", "secretKeyRef"):
        if source.get(name) is not None:
            errors += check_dns_subdomain(source[name].get("name"), f"{path}.{name}.name")
            if not source[name].get("key"):
                errors.append(required(f"{path}.{name}.key"))
    if (reference := source.get("fieldRef")) is not None:
        field = reference.get("fieldPath") or ""
        is_map_key = field.startswith(("metadata.labels['", "metadata.annotations['")) and field.endswith("']")
        if not field:
            errors.append(required(f"{path}.fieldRef.fieldPath"))
        elif field not in FIELD_PATHS and not is_map_key:
            known = (*FIELD_PATHS, "metadata.labels['KEY']", "metadata.annotations['KEY']")
            errors.append(not_supported(f"{path}.fieldRef.fieldPath", field, known))
    if (amount := source.get("resourceFieldRef")) is not None and not amount.get("resource"):
        errors.append(required(f"{path}.resourceFieldRef.resource"))
    return errors


def _check_mounts(container: Json, path: str, volumes: frozenset[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    places: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        place = item_path(f"{path}.volumeMounts", index)
        name, mount_path, sub_path = mount.get("name") or "", mount.get("mountPath") or "", mount.get("subPath") or ""
        if not name:
            errors.append(required(f"{place}.name"))
        elif name not in volumes:
            detail = f"no volume of that name; the pod's volumes: {', '.join(sorted(volumes)) or 'none'}"
            errors.append(FieldError(f"{place}.name", NOT_FOUND, f'Not found: "{name}": {detail}'))
        if not mount_path:
            errors.append(required(f"{place}.mountPath"))
        elif mount_path in places:
            errors.append(duplicate(f"{place}.mountPath", mount_path))
        places.add(mount_path)
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            errors.append(invalid(f"{place}.subPath", sub_path, "must be a relative path without '..'"))
    return errors


def _check_probe(probe: Json, path: str, *, may_need_several: bool) -> list[FieldError]:
    errors = check_one_of(probe, path, _HANDLERS, "handler type") + _check_handler(probe, path)
    errors += check_range(probe.get("initialDelaySeconds"), f"{path}.initialDelaySeconds", 0)
    for field in ("periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"):
        errors += check_range(probe.get(field), f"{path}.{field}", 1)
    if not may_need_several and probe.get("successThreshold", 1) > 1:
        errors.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    return errors


def _check_handler(handler: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if (command := handler.get("exec")) is not None and not command.get("command"):
        errors.append(required(f"{path}.exec.command"))
    if (http := handler.get("httpGet")) is not None:
        errors += check_port(http.get("port"), f"{path}.httpGet.port")
        errors += check_choice(http.get("scheme"), f"{path}.httpGet.scheme", ("HTTP", "HTTPS"))
    if (tcp := handler.get("tcpSocket")) is not None:
        errors += check_port(tcp.get("port"), f"{path}.tcpSocket.port")
    if (grpc := handler.get("grpc")) is not None:
        errors += check_port_number(grpc.get("port"), f"{path}.grpc.port")
    if (sleep := handler.get("sleep")) is not None:
        errors += check_range(sleep.get("seconds"), f"{path}.sleep.seconds", 0)
    return errors
