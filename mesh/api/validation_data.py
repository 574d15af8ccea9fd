"""ConfigMap and Secret."""

import base64
from collections.abc import Mapping

from mesh.api.errors import FieldError, forbidden, invalid, required
from mesh.api.resources import Json
from mesh.api.tree import child_path
from mesh.api.validation_names import check_data_keys, check_immutable

MAX_DATA_BYTES = 1024 * 1024
"""All values of one ConfigMap or Secret together."""
_NEEDED_KEYS: Mapping[str, tuple[str, ...]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
_SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"


def validate_config_map(config_map: Json, old: Json | None) -> list[FieldError]:
    """Keys, size, and nothing changed when immutable."""
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    errors = check_data_keys(data, "data") + check_data_keys(binary, "binaryData")
    errors += [
        invalid(child_path("data", key), key, "duplicate of a key in binaryData") for key in data if key in binary
    ]
    size = sum(len(text.encode()) for text in data.values()) + _decoded_size(binary)
    errors += _check_size(size, "")
    return errors + _check_frozen(config_map, old, ("data", "binaryData"))


def validate_secret(secret: Json, old: Json | None) -> list[FieldError]:
    """Keys, size, what its type needs, and nothing changed when immutable."""
    data = secret.get("data") or {}
    errors = check_data_keys(data, "data") + _check_size(_decoded_size(data), "data")
    kind = secret.get("type") or "Opaque"
    errors += [required(child_path("data", key)) for key in _NEEDED_KEYS.get(kind, ()) if key not in data]
    if kind == _SERVICE_ACCOUNT_TOKEN and not (secret["metadata"].get("annotations") or {}).get(_SERVICE_ACCOUNT_NAME):
        errors.append(required(child_path("metadata.annotations", _SERVICE_ACCOUNT_NAME)))
    if old is not None:
        errors += check_immutable(kind, old.get("type") or "Opaque", "type")
    return errors + _check_frozen(secret, old, ("data",))


def _decoded_size(data: Mapping[str, str]) -> int:
    return sum(len(base64.b64decode(text)) for text in data.values())


def _check_size(size: int, path: str) -> list[FieldError]:
    if size <= MAX_DATA_BYTES:
        return []
    return [forbidden(path, f"{size} bytes of data, at most {MAX_DATA_BYTES} are taken")]


def _check_frozen(obj: Json, old: Json | None, fields: tuple[str, ...]) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    errors = [
        forbidden(field, "field is immutable when `immutable` is set")
        for field in fields
        if (obj.get(field) or {}) != (old.get(field) or {})
    ]
    if not obj.get("immutable"):
        errors.append(forbidden("immutable", "field is immutable when `immutable` is set"))
    return errors
