"""Names, labels, ports and addresses: the small rules many kinds share. Each check answers its errors.

Source: Kubernetes documentation "Object Names and IDs", RFC 1123, RFC 1035, RFC 6335.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from mesh.api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from mesh.api.selectors import is_label_key, is_label_value
from mesh.api.tree import child_path, item_path

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL_RULE = "lower-case letters, digits and '-', starting and ending with a letter or digit"

PROTOCOLS = ("TCP", "UDP", "SCTP")


def is_dns_label(text: str) -> bool:
    """RFC 1123 label, at most 63 characters."""
    return _LABEL.fullmatch(text) is not None


def check_dns_label(value: Any, path: str) -> list[FieldError]:
    """An RFC 1123 label; required."""
    if not value:
        return [required(path)]
    if is_dns_label(value):
        return []
    return [invalid(path, value, f"must be at most 63 characters: {_LABEL_RULE} (RFC 1123 label), such as my-name")]


def check_dns_1035_label(value: Any, path: str) -> list[FieldError]:
    """An RFC 1035 label (starts with a letter); required."""
    if not value:
        return [required(path)]
    if _LABEL_1035.fullmatch(value):
        return []
    detail = f"must be at most 63 characters: {_LABEL_RULE}, and start with a letter (RFC 1035 label), such as my-name"
    return [invalid(path, value, detail)]


def check_dns_subdomain(value: Any, path: str) -> list[FieldError]:
    """An RFC 1123 subdomain, at most 253 characters; required."""
    if not value:
        return [required(path)]
    if len(value) <= 253 and _SUBDOMAIN.fullmatch(value):
        return []
    detail = f"must be at most 253 characters: parts of {_LABEL_RULE}, joined by '.' (RFC 1123 subdomain), such as example.com"
    return [invalid(path, value, detail)]


def check_qualified_name(value: Any, path: str) -> list[FieldError]:
    """A label's key: optional DNS prefix and '/', then a name of at most 63 characters."""
    if not value:
        return [required(path)]
    prefix, slash, _ = str(value).lower().rpartition("/")
    if is_label_key(value) and (not slash or _SUBDOMAIN.fullmatch(prefix)):
        return []
    detail = (
        "must be a name of at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, "
        "optionally with a DNS prefix, such as example.com/my-name"
    )
    return [invalid(path, value, detail)]


def check_labels(labels: Any, path: str) -> list[FieldError]:
    """A map of label keys to label values; may be missing."""
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        errors += check_qualified_name(key, path)
        if not is_label_value(str(value)):
            detail = "a label value is at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
            errors.append(invalid(child_path(path, key), value, detail))
    return errors


def check_choice(value: Any, path: str, allowed: Iterable[str]) -> list[FieldError]:
    """One of `allowed`; a missing value is no error."""
    choices = tuple(allowed)
    return [] if value is None or value in choices else [not_supported(path, value, choices)]


def check_range(value: Any, path: str, low: int, high: int | None = None) -> list[FieldError]:
    """A number in [low, high]; a missing value is no error."""
    if value is None:
        return []
    if high is None:
        return [] if value >= low else [invalid(path, value, f"must be greater than or equal to {low}")]
    return [] if low <= value <= high else [invalid(path, value, f"must be between {low} and {high}, inclusive")]


def check_port_number(value: Any, path: str) -> list[FieldError]:
    """1 to 65535; required."""
    return [required(path)] if not value else check_range(value, path, 1, 65535)


def check_port_name(value: str, path: str) -> list[FieldError]:
    """An IANA service name. Source: RFC 6335 s5.1."""
    if _PORT_NAME.fullmatch(value) and "--" not in value and re.search("[a-z]", value):
        return []
    return [invalid(path, value, f"must be at most 15 characters: {_LABEL_RULE}, with at least one letter and no '--'")]


def check_port(value: Any, path: str) -> list[FieldError]:
    """A port's number or name; required."""
    if isinstance(value, str):
        return check_port_name(value, path) if value else [required(path)]
    return check_port_number(value, path)


def check_ip(value: Any, path: str) -> list[FieldError]:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return [invalid(path, value, "must be an IP address, such as 10.9.8.7")]
    return []


def check_data_keys(data: Any, path: str) -> list[FieldError]:
    """Keys of a ConfigMap or Secret: usable as file names."""
    detail = "a key is at most 253 letters, digits, '-', '_' and '.', and neither '.' nor starts with '..'"
    return [
        invalid(child_path(path, key), key, detail)
        for key in data or {}
        if not _DATA_KEY.fullmatch(key) or key == "." or key.startswith("..")
    ]


def check_unique(values: Iterable[Any], path: str, field: str = "") -> list[FieldError]:
    """No two elements of a list are the same; `field` names the part of the element to blame. None is not compared."""
    seen: set[Any] = set()
    errors: list[FieldError] = []
    for index, value in enumerate(values):
        if value is not None and value in seen:
            place = item_path(path, index)
            errors.append(duplicate(f"{place}.{field}" if field else place, value))
        seen.add(value)
    return errors


def check_one_of(holder: Any, path: str, names: Iterable[str], what: str) -> list[FieldError]:
    """Exactly one of the fields `names` is set."""
    choices = tuple(names)
    present = [name for name in choices if holder.get(name) is not None]
    if not present:
        return [required(path, f"must specify {what}: one of {', '.join(choices)}")]
    return [forbidden(f"{path}.{name}", f"may not specify more than 1 {what}") for name in present[1:]]


def check_immutable(new: Any, old: Any, path: str) -> list[FieldError]:
    """The field keeps its value once it has one."""
    return [] if new == old else [invalid(path, new, "field is immutable")]
