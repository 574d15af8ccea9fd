"""Table objects of meta.k8s.io/v1 for any kind."""

from collections.abc import Mapping, Sequence

from controlplane.apiserver.kinds import Kind, PrinterColumn
from controlplane.apiserver.tables import cluster, pods, services, workloads
from controlplane.apiserver.tables.columns import AGE, NAME, Cell, CellOf, Column, since
from controlplane.apiserver.tables.paths import value_at
from mesh.api import resources
from mesh.api.resources import Json

_BUILTIN: Mapping[tuple[str, str], Sequence[Column]] = {
    resources.PODS.key: pods.PODS_COLUMNS,
    resources.DEPLOYMENTS.key: workloads.DEPLOYMENTS_COLUMNS,
    resources.REPLICA_SETS.key: workloads.REPLICA_SETS_COLUMNS,
    resources.REPLICATION_CONTROLLERS.key: workloads.REPLICATION_CONTROLLERS_COLUMNS,
    resources.SERVICES.key: services.SERVICES_COLUMNS,
    resources.ENDPOINTS.key: services.ENDPOINTS_COLUMNS,
    resources.ENDPOINT_SLICES.key: services.ENDPOINT_SLICES_COLUMNS,
    resources.NODES.key: cluster.NODES_COLUMNS,
    resources.NAMESPACES.key: cluster.NAMESPACES_COLUMNS,
    resources.CONFIG_MAPS.key: cluster.CONFIG_MAPS_COLUMNS,
    resources.SECRETS.key: cluster.SECRETS_COLUMNS,
    resources.SERVICE_ACCOUNTS.key: cluster.SERVICE_ACCOUNTS_COLUMNS,
    resources.EVENTS.key: cluster.EVENTS_COLUMNS,
    resources.LEASES.key: cluster.LEASES_COLUMNS,
    resources.CUSTOM_RESOURCE_DEFINITIONS.key: cluster.CUSTOM_RESOURCE_DEFINITIONS_COLUMNS,
    resources.HOST_IMAGES.key: cluster.HOST_IMAGES_COLUMNS,
    resources.VIRTUAL_SERVICES.key: cluster.VIRTUAL_SERVICES_COLUMNS,
    resources.DESTINATION_RULES.key: cluster.DESTINATION_RULES_COLUMNS,
    resources.HTTP_ROUTES.key: cluster.HTTP_ROUTES_COLUMNS,
    resources.TRAFFIC_LIMITS.key: cluster.TRAFFIC_LIMITS_COLUMNS,
}
_PLAIN = (NAME, AGE)


def columns_of(kind: Kind) -> Sequence[Column]:
    """The columns of a kind; name and age when nothing better is known."""
    if kind.columns is not None:
        return (NAME, *map(_custom, kind.columns))
    return _BUILTIN.get(kind.resource.key, _PLAIN)


def _custom(column: PrinterColumn) -> Column:
    return Column(column.name, _custom_cell(column), column.type, column.priority, column.format, column.description)


def _custom_cell(column: PrinterColumn) -> CellOf:
    def cell(obj: Json, now_s: float) -> Cell:
        value = value_at(obj, column.path)
        if value is None:
            return None
        if column.type == "date":
            return since(value, now_s)
        return value if isinstance(value, str | int | float | bool) else str(value)

    return cell


def table(kind: Kind, objects: Sequence[Json], metadata: Json, *, now_s: float, include: str = "Metadata") -> Json:
    """A Table of `objects`. `include` is the query's includeObject: None, Metadata (the default) or Object."""
    columns = columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in columns],
        "rows": [_row(columns, obj, now_s, include) for obj in objects],
    }


def _row(columns: Sequence[Column], obj: Json, now_s: float, include: str) -> Json:
    row: Json = {"cells": [column.cell(obj, now_s) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial_metadata(obj)
    return row


def partial_metadata(obj: Json) -> Json:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
