"""Header operations of routes and destinations."""

import re

from mesh.api.networking import HeaderOperations
from mesh.routing.table import HeaderMutation, HeaderValue
from policies.checks import Findings

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RESERVED = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive"}
)
"""Framing and routing depend on them: changing them would break the message."""


def is_token(text: str) -> bool:
    """A name as headers and methods have. Source: RFC 9110 s5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def check_header_name(path: str, name: str, findings: Findings) -> None:
    """A field name. Source: RFC 9110 s5.1."""
    if not is_token(name):
        findings.invalid(path, f'"{name}" is no header name')


def compile_header_operations(path: str, operations: HeaderOperations, findings: Findings) -> HeaderMutation:
    """`set` replaces, `add` appends, `remove` removes."""
    added: list[HeaderValue] = []
    for kind, values, append in (("set", operations.set, False), ("add", operations.add, True)):
        for name, value in values.items():
            here = f'{path}.{kind}["{name}"]'
            _check_change(here, name, findings)
            _check_value(here, value, findings)
            added.append(HeaderValue(name=name.lower(), value=value, append=append))
    for index, name in enumerate(operations.remove):
        _check_change(f"{path}.remove[{index}]", name, findings)
    return HeaderMutation(add=tuple(added), remove=tuple(name.lower() for name in operations.remove))


def _check_change(path: str, name: str, findings: Findings) -> None:
    check_header_name(path, name, findings)
    if name.lower() in _RESERVED:
        advice = "use rewrite.authority" if name.lower() == "host" else "remove it"
        findings.invalid(path, f'"{name}" decides how the message travels and cannot be changed: {advice}')


def _check_value(path: str, value: str, findings: Findings) -> None:
    if any(ord(c) < 0x20 and c != "\t" for c in value) or "\x7f" in value:
        findings.invalid(path, "the value holds control characters, which headers cannot carry")
    if "%" in value:
        findings.invalid(path, 'the value holds "%", which Envoy reads as a %VARIABLE%: variables are not supported')
