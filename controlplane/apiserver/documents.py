"""OpenAPI v3 documents, made when first asked for and kept until the kinds change."""

import hashlib

import orjson

from controlplane.apiserver.kinds import Kind, KindRegistry
from controlplane.apiserver.rules import Rules
from controlplane.apiserver.version import version_info
from mesh.api.openapi import document_path, openapi_document, openapi_index
from mesh.api.resources import Json


class Documents:
    """The index and one document per group version."""

    def __init__(self, kinds: KindRegistry, rules: Rules) -> None:
        self._kinds = kinds
        self._rules = rules
        self._generation = -1
        self._made: dict[str, bytes] = {}

    def index(self) -> Json:
        """GET /openapi/v3: cheap, no document is made."""
        groups = self._kinds.group_versions()
        places = [(group, version) for group, versions in groups.items() for version in versions]
        hashes = {document_path(g, v): _hash(self._kinds.in_group(g, v)) for g, v in places}
        return openapi_index(hashes)

    def document(self, place: str) -> bytes | None:
        """GET /openapi/v3/PLACE; None when that group version isn't served. 5 to 40 ms the first time."""
        if self._generation != self._kinds.generation:
            self._made.clear()
            self._generation = self._kinds.generation
        if place not in self._made:
            group, version = _group_version(place)
            kinds = self._kinds.in_group(group, version)
            if not kinds:
                return None
            resources = tuple(kind.resource for kind in kinds)
            self._made[place] = orjson.dumps(openapi_document(group, version, resources, self._rules.schemas))
        return self._made[place]


def legacy_document() -> bytes:
    """GET /openapi/v2 as protobuf: a document without paths.

    kubectl turns to it when version 3 does not know a kind, and takes an error there for one of ours; from an empty one it
    learns what it wants to know, that the kind is unknown.
    """
    info = _proto_text(1, "Meshwork") + _proto_text(2, "unversioned")
    return _proto_text(1, "2.0") + b"\x12" + bytes([len(info)]) + info


def _proto_text(number: int, text: str) -> bytes:
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def _group_version(place: str) -> tuple[str, str]:
    match place.split("/"):
        case ["api", version]:
            return "", version
        case ["apis", group, version]:
            return group, version
        case _:
            return "", ""


def _hash(kinds: tuple[Kind, ...]) -> str:
    """Differs when the document would: clients keep documents on disk by it."""
    parts = [version_info()["gitVersion"], *(f"{kind.resource}{kind.schema}" for kind in kinds)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest().upper()[:32]
