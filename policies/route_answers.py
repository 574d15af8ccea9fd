"""Routes that answer by themselves: redirects and direct responses."""

import base64
import binascii

from mesh.api.networking import HttpBody, HttpDirectResponse, HttpRedirect
from mesh.routing.table import DirectResponse
from policies.checks import Findings
from policies.values import PortOf, RedirectTo

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_BODY_BYTES = 4096
"""Source: Envoy, max_direct_response_body_size_bytes."""
_PORT_OF = {
    "": PortOf.LOCATION,
    "FROM_PROTOCOL_DEFAULT": PortOf.SCHEME,
    "FROM_REQUEST_PORT": PortOf.REQUEST,
}


def compile_redirect(path: str, redirect: HttpRedirect, findings: Findings) -> RedirectTo:
    """Which part of the request's URL changes."""
    status = redirect.redirect_code or 301
    if status not in REDIRECTS:
        findings.unsupported(f"{path}.redirectCode", f"{status} is no redirect: use 301, 302, 303, 307 or 308")
    if redirect.port:
        findings.port(f"{path}.port", redirect.port)
    if redirect.derive_port not in _PORT_OF:
        findings.unsupported(f"{path}.derivePort", "use FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT")
    elif redirect.derive_port and redirect.port:
        findings.invalid(f"{path}.derivePort", "port is given already: remove one of them")
    if not (redirect.uri or redirect.authority or redirect.port or redirect.scheme):
        findings.required(path, "changes nothing, which makes clients loop: give uri, authority, port or scheme")
    if redirect.uri and not redirect.uri.startswith("/"):
        findings.invalid(f"{path}.uri", f'"{redirect.uri}": a path starts with "/"')
    if redirect.scheme not in ("", "http", "https"):
        findings.unsupported(f"{path}.scheme", f'"{redirect.scheme}": use http or https')
    return RedirectTo(
        scheme=redirect.scheme,
        host=redirect.authority,
        port=redirect.port,
        port_of=_PORT_OF.get(redirect.derive_port, PortOf.LOCATION),
        path=redirect.uri,
        status=status,
    )


def compile_direct_response(path: str, response: HttpDirectResponse, findings: Findings) -> DirectResponse:
    """Status and body."""
    findings.between(f"{path}.status", response.status, 200, 599)
    content = _body(f"{path}.body", response.body, findings) if response.body else b""
    if len(content) > MAX_BODY_BYTES:
        findings.invalid(f"{path}.body", f"has {len(content)} bytes, at most {MAX_BODY_BYTES} are allowed")
    return DirectResponse(status=response.status, body=content)


def _body(path: str, body: HttpBody, findings: Findings) -> bytes:
    if body.string and body.bytes:
        findings.invalid(path, "has string and bytes: give only one of them")
    if not body.bytes:
        return body.string.encode()
    try:
        return base64.b64decode(body.bytes, validate=True)
    except (binascii.Error, ValueError):
        findings.invalid(f"{path}.bytes", "is not base64")
        return b""
