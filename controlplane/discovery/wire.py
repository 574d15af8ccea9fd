"""Requests and responses of both ADS variants: messages in, bytes out. Responses are joined from finished frames."""

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from controlplane.discovery.stream import Request, Response


def delta_request(message: Any) -> Request:
    """A DeltaDiscoveryRequest."""
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message),
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        known=dict(message.initial_resource_versions),
    )


def sotw_request(message: Any) -> Request:
    """A DiscoveryRequest."""
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message),
        names=tuple(message.resource_names),
        version=message.version_info,
    )


def _error(message: Any) -> str:
    """A refusal is known by its error_detail, never by versions."""
    if not message.HasField("error_detail"):
        return ""
    return str(message.error_detail.message) or f"refused without a reason (code {message.error_detail.code})"


def delta_response(response: Response) -> bytes:
    """A DeltaDiscoveryResponse, serialised."""
    head = discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        system_version_info=response.version,
        removed_resources=response.removed,
    )
    return b"".join([head.SerializeToString(), *(resource.delta_frame for resource in response.resources)])


def sotw_response(response: Response) -> bytes:
    """A DiscoveryResponse, serialised."""
    head = discovery_pb2.DiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, version_info=response.version
    )
    return b"".join([head.SerializeToString(), *(resource.sotw_frame for resource in response.resources)])
