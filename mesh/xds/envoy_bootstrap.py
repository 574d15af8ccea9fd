"""A bootstrap file with which a real Envoy joins this mesh: node, admin, and the ADS stream over TLS with a token. Pure.

Source: Envoy's bootstrap reference (envoy.config.bootstrap.v3.Bootstrap) and docs/contracts.md, "xDS resources".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mesh.errors import UserError


class BootstrapRenderError(UserError):
    """The values can't make a usable bootstrap file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyIdentity:
    """Who the Envoy is, and where its control plane is."""

    namespace: str
    token: str
    """Service account token, sent as `authorization: Bearer`. It stands in the file: keep the file private."""
    ca_pem: str
    """The cluster's CA, PEM."""
    pod: str = "envoy"
    address: str = "127.0.0.1"
    """The address the proxy names itself by in its node id."""
    discovery_address: str = "172.30.0.1:15012"
    """host:port of the ADS server."""
    discovery_name: str = ""
    """Name to check the ADS server's certificate against; empty: the host of `discovery_address`."""
    interception_mode: str = "NONE"
    """NONE: one listener on 127.0.0.1:15001 for all services by Host. REDIRECT: as in a pod with interception."""
    labels: Mapping[str, str] = field(default_factory=dict)
    admin_port: int = 15000
    uses_delta: bool = True
    """Incremental xDS; else state of the world."""


def render_envoy_bootstrap(identity: EnvoyIdentity) -> str:
    """The file's text, YAML. Raises BootstrapRenderError for an address without a port or an empty token."""
    host, _, port = identity.discovery_address.rpartition(":")
    if not host or not port.isdecimal():
        raise BootstrapRenderError(f"discovery address {identity.discovery_address!r}: want host:port")
    if not identity.token:
        raise BootstrapRenderError("the token is empty: the control plane refuses a stream without one")
    document = {
        "node": _node(identity),
        "admin": {"address": _socket_address("127.0.0.1", identity.admin_port)},
        "dynamic_resources": _dynamic_resources(identity),
        "static_resources": {"clusters": [_control_plane_cluster(identity, host, int(port))]},
    }
    return yaml.safe_dump(document, sort_keys=False, width=1000)


def _node(identity: EnvoyIdentity) -> dict[str, Any]:
    domain = f"{identity.namespace}.svc.cluster.local"
    return {
        "id": f"sidecar~{identity.address}~{identity.pod}.{identity.namespace}~{domain}",
        "cluster": f"{identity.labels.get('app', identity.pod)}.{identity.namespace}",
        "metadata": {
            "NAMESPACE": identity.namespace,
            "NAME": identity.pod,
            "LABELS": dict(identity.labels),
            "INTERCEPTION_MODE": identity.interception_mode,
            "PROXY": "envoy",
        },
    }


def _dynamic_resources(identity: EnvoyIdentity) -> dict[str, Any]:
    source = {"ads": {}, "resource_api_version": "V3"}
    token = {"key": "authorization", "value": f"Bearer {identity.token}"}
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC" if identity.uses_delta else "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": "meshwork-discovery"}, "initial_metadata": [token]}],
        },
        "lds_config": dict(source),
        "cds_config": dict(source),
    }


def _control_plane_cluster(identity: EnvoyIdentity, host: str, port: int) -> dict[str, Any]:
    validation: dict[str, Any] = {
        "trusted_ca": {"inline_string": identity.ca_pem},
        "match_typed_subject_alt_names": [_name_matcher(identity.discovery_name or host)],
    }
    return {
        "name": "meshwork-discovery",
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "meshwork-discovery",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket_address(host, port)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
                },
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2"], "validation_context": validation},
            },
        },
    }


def _name_matcher(name: str) -> dict[str, Any]:
    is_address = all(part.isdecimal() for part in name.split(".")) or ":" in name
    return {"san_type": "IP_ADDRESS" if is_address else "DNS", "matcher": {"exact": name}}


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def as_json(text: str) -> str:
    """A rendered file as JSON, which Envoy reads as well."""
    return json.dumps(yaml.safe_load(text), indent=2)
