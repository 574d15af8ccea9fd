"""A container's environment: values, $(VAR) references, fields of the pod, ConfigMaps and Secrets. Pure.

Source: Kubernetes API reference, EnvVar and EnvVarSource; kubelet's `third_party/forked/golang/expansion`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.api.meta import Quantity
from mesh.api.pod import Container, EnvVar, EnvVarSource, KeySelector, ObjectFieldSelector, Pod, ResourceFieldSelector
from mesh.api.quantity import parse_quantity
from node.errors import ContainerConfigError

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The ConfigMaps and Secrets of the pod's namespace that its containers name. A missing one is absent."""

    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFields:
    """What fieldRef and resourceFieldRef may ask for beyond the object itself."""

    pod_ip: str = ""
    host_ip: str = ""
    capacity: Mapping[str, Quantity] = field(default_factory=dict)
    """The node's, for limits a container does not set."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value. An unknown name stays as it is; $$ is a literal $, so $$(NAME) gives $(NAME)."""

    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return values.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)


def needed_sources(container: Container) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the ConfigMaps and Secrets that the container's environment needs."""
    config_maps, secrets = set(), set()
    for source in container.env_from:
        if source.config_map_ref:
            config_maps.add(source.config_map_ref.name)
        if source.secret_ref:
            secrets.add(source.secret_ref.name)
    for variable in container.env:
        origin = variable.value_from
        if origin and origin.config_map_key_ref:
            config_maps.add(origin.config_map_key_ref.name)
        if origin and origin.secret_key_ref:
            secrets.add(origin.secret_key_ref.name)
    return frozenset(config_maps), frozenset(secrets)


def build_environment(
    pod: Pod, container: Container, fields: PodFields, sources: Sources, defaults: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment: `defaults` (the image's), then envFrom, then env in order. Raises ContainerConfigError."""
    values = dict(defaults)
    for source in container.env_from:
        if (reference := source.config_map_ref) is not None:
            data = _object("configmap", sources.config_maps, reference.name, optional=reference.optional)
            values |= _prefixed(source.prefix, data)
        if (reference := source.secret_ref) is not None:
            data = _object("secret", sources.secrets, reference.name, optional=reference.optional)
            values |= _prefixed(source.prefix, data)
    for variable in container.env:
        value = _value(pod, container, variable, fields, sources, values)
        if value is not None:
            values[variable.name] = value
    return values


def _prefixed(prefix: str, data: Mapping[str, str]) -> dict[str, str]:
    """Keys that make no valid variable name are left out, as kubelet does."""
    return {prefix + key: value for key, value in data.items() if _NAME.fullmatch(prefix + key)}


def _object(kind: str, known: Mapping[str, Mapping[str, str]], name: str, *, optional: bool) -> Mapping[str, str]:
    found = known.get(name)
    if found is None and not optional:
        raise ContainerConfigError(f'{kind} "{name}" not found')
    return found or {}


def _value(
    pod: Pod,
    container: Container,
    variable: EnvVar,
    fields: PodFields,
    sources: Sources,
    values: Mapping[str, str],
) -> str | None:
    origin = variable.value_from
    if origin is None:
        return expand(variable.value, values)
    return _from_source(pod, container, origin, fields, sources)


def _from_source(
    pod: Pod, container: Container, origin: EnvVarSource, fields: PodFields, sources: Sources
) -> str | None:
    if origin.field_ref is not None:
        return field_value(pod, origin.field_ref, fields)
    if origin.resource_field_ref is not None:
        return resource_value(pod, container, origin.resource_field_ref, fields)
    if origin.config_map_key_ref is not None:
        return _key("configmap", sources.config_maps, origin.config_map_key_ref)
    if origin.secret_key_ref is not None:
        return _key("secret", sources.secrets, origin.secret_key_ref)
    raise ContainerConfigError(
        "valueFrom names no source: want fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef"
    )


def _key(kind: str, known: Mapping[str, Mapping[str, str]], selector: KeySelector) -> str | None:
    data = _object(kind, known, selector.name, optional=selector.optional)
    value = data.get(selector.key)
    if value is None and not selector.optional:
        raise ContainerConfigError(f'{kind} "{selector.name}" has no key "{selector.key}"')
    return value


def field_value(pod: Pod, selector: ObjectFieldSelector, fields: PodFields) -> str:
    """A field of the pod as text. Raises ContainerConfigError for a path Kubernetes does not offer."""
    path = selector.field_path
    if match := _SUBSCRIPT.fullmatch(path):
        values = pod.metadata.labels if match.group(1) == "labels" else pod.metadata.annotations
        return values.get(match.group(2), "")
    meta, spec = pod.metadata, pod.spec
    known = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.node_name,
        "spec.serviceAccountName": spec.service_account_name,
        "status.podIP": fields.pod_ip,
        "status.podIPs": fields.pod_ip,
        "status.hostIP": fields.host_ip,
        "status.hostIPs": fields.host_ip,
        "metadata.labels": _lines(meta.labels),
        "metadata.annotations": _lines(meta.annotations),
    }
    if path not in known:
        raise ContainerConfigError(f'fieldRef: unknown fieldPath "{path}"')
    return known[path]


def _lines(values: Mapping[str, str]) -> str:
    quoted = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, value in values.items()
    }
    return "\n".join(f'{key}="{quoted[key]}"' for key in sorted(quoted))


def resource_value(pod: Pod, container: Container, selector: ResourceFieldSelector, fields: PodFields) -> str:
    """A request or limit divided by the divisor and rounded up; a limit that is not set is the node's capacity."""
    of = selector.container_name
    target = next((c for c in (*pod.spec.containers, *pod.spec.init_containers) if c.name == of), container)
    kind, _, resource = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise ContainerConfigError(f'resourceFieldRef: unknown resource "{selector.resource}"')
    wanted = target.resources.limits if kind == "limits" else target.resources.requests
    amount = wanted.get(resource, fields.capacity.get(resource, 0) if kind == "limits" else 0)
    divisor = parse_quantity(selector.divisor)
    return str(math.ceil(parse_quantity(amount) / (divisor or 1)))
