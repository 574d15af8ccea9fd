"""The metadata that lets a proxy name the object behind a rule, and the workload behind an endpoint."""

from typing import Any

from envoy.config.core.v3 import base_pb2
from google.protobuf import struct_pb2

from controlplane.discovery.facts import EndpointFacts, PodFacts
from mesh.routing.table import Provenance

METADATA_KEY = "meshwork.dev"


def provenance_metadata(provenance: Provenance, **extra: str) -> Any:
    """core.v3.Metadata with kind, namespace, name, field, file and line, and `extra`; empty fields are left out."""
    values: dict[str, str | int] = {
        "kind": provenance.kind,
        "namespace": provenance.namespace,
        "name": provenance.name,
        "field": provenance.field,
        "file": provenance.file,
        "line": provenance.line,
        **extra,
    }
    return _metadata({key: value for key, value in values.items() if value})


def workload_metadata(endpoint: EndpointFacts, pod: PodFacts | None) -> Any:
    """core.v3.Metadata with workload, namespace, app, version, pod and node."""
    if pod is None:
        return _metadata({"node": endpoint.node} if endpoint.node else {})
    labels = dict(pod.labels)
    values: dict[str, str | int] = {
        "workload": pod.workload,
        "namespace": pod.namespace,
        "app": labels.get("app.kubernetes.io/name", labels.get("app", "")),
        "version": labels.get("app.kubernetes.io/version", labels.get("version", "")),
        "pod": pod.name,
        "node": pod.node or endpoint.node,
    }
    return _metadata({key: value for key, value in values.items() if value})


def _metadata(values: dict[str, str | int]) -> Any:
    struct = struct_pb2.Struct()
    for key, value in values.items():
        if isinstance(value, str):
            struct.fields[key].string_value = value
        else:
            struct.fields[key].number_value = value
    return base_pb2.Metadata(filter_metadata={METADATA_KEY: struct})
