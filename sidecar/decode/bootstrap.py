"""An Envoy bootstrap file (YAML or JSON) -> admin address and snapshot. The same file starts real Envoy.

Only `static_resources`, `admin` and `node` are understood. An error names the field by its path in the file.
"""

import itertools
import json
from typing import Any, Final

import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.filters.http.adaptive_concurrency.v3 import adaptive_concurrency_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import json_format

from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, socket_address
from sidecar.config import Bootstrap
from sidecar.decode.assembly import Resources, make_snapshot
from sidecar.decode.clusters import decode_cluster
from sidecar.decode.listeners import decode_listener

KNOWN_BY_NAME: Final = (
    adaptive_concurrency_pb2,
    cookie_pb2,
    cors_pb2,
    fault_pb2,
    header_pb2,
    http_inspector_pb2,
    local_rate_limit_pb2,
    original_dst_pb2,
    previous_hosts_pb2,
    stateful_session_pb2,
    tls_inspector_pb2,
)
"""Modules whose messages a file may hold in an Any. Importing them makes the JSON reader know them."""


def parse_bootstrap(text: str, name: str) -> Bootstrap:
    """Read the file's text; `name` names the file in errors. Raises DecodeError."""
    document = _load(text, name)
    if not isinstance(document, dict):
        raise DecodeError(name, "want an object with static_resources")
    bootstrap = bootstrap_pb2.Bootstrap()
    try:
        json_format.ParseDict(document, bootstrap)
    except (json_format.ParseError, TypeError, ValueError) as exc:
        raise DecodeError(name, f"is not an Envoy bootstrap: {exc}") from exc
    try:
        return decode_bootstrap(bootstrap)
    except DecodeError as exc:
        raise DecodeError(name, str(exc)) from exc


def _load(text: str, name: str) -> Any:
    """JSON, which is read a hundred times faster than YAML, or YAML by libyaml."""
    if text.lstrip()[:1] == "{":
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML has braces too
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as exc:
        raise DecodeError(name, f"is not valid YAML or JSON: {' '.join(str(exc).split())}") from exc


def decode_bootstrap(bootstrap: Any) -> Bootstrap:
    """An envoy.config.bootstrap.v3.Bootstrap. Raises DecodeError."""
    only(bootstrap, "", "node", "admin", "static_resources")
    only(
        bootstrap.admin, "admin", "address", "access_log", "access_log_path", "profile_path", "ignore_global_conn_limit"
    )
    only(bootstrap.static_resources, "static_resources", "listeners", "clusters")
    has_admin = bootstrap.admin.HasField("address")
    resources = _resources(bootstrap.static_resources)
    return Bootstrap(
        snapshot=make_snapshot(resources, "bootstrap"),
        admin=socket_address(bootstrap.admin.address, "admin.address", allow_port_zero=True) if has_admin else None,
        node_id=bootstrap.node.id,
        cluster=bootstrap.node.cluster,
    )


def _resources(static: Any) -> Resources:
    resources = Resources()
    for i, one in enumerate(static.clusters):
        path = f"static_resources.clusters[{i}]"
        found = decode_cluster(one, path)
        if not one.name or one.name in resources.clusters:
            raise DecodeError(join(path, "name"), f'"{one.name}" is empty or used twice')
        if found.eds_name:
            raise DecodeError(
                join(path, "type"), "EDS needs a control plane; want STATIC or STRICT_DNS with IP addresses"
            )
        resources.clusters[one.name] = found
    for i, one in enumerate(static.listeners):
        path = f"static_resources.listeners[{i}]"
        listener = decode_listener(one, path)
        if listener.name in resources.listeners:
            raise DecodeError(join(path, "name"), f'"{listener.name}" is used twice')
        resources.listeners[listener.name] = listener
    if not resources.listeners:
        raise DecodeError("static_resources.listeners", "is empty; a proxy without listeners does nothing")
    _check_references(resources)
    return resources


def _check_references(resources: Resources) -> None:
    """A static file can't be completed later: what it names must be in it."""
    missing = sorted(resources.wanted_routes())
    if missing:
        raise DecodeError(
            "static_resources", f"routes {', '.join(missing)} by rds need a control plane; use route_config"
        )
    named: set[str] = set()
    for listener in resources.listeners.values():
        for chain in listener.chains:
            named |= _clusters_of(chain.filter)
    unknown = sorted(named - resources.clusters.keys())
    if unknown:
        known = ", ".join(sorted(resources.clusters)) or "none"
        raise DecodeError(
            "static_resources.clusters", f"{', '.join(unknown)} is named by a route but missing; there are: {known}"
        )


def _clusters_of(one: Any) -> set[str]:
    tables = [one.inline_routes] if getattr(one, "inline_routes", None) is not None else []
    branches = itertools.chain.from_iterable(table.cluster_names() for table in tables)
    return {*branches, *(branch.name for branch in getattr(one, "clusters", ()))}
