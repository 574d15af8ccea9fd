"""Where a compiled rule comes from: the object, the field, and the file and line it was applied from."""

from mesh.api.meta import ObjectMeta
from mesh.routing.table import Provenance

SOURCE_ANNOTATION = "meshwork.dev/source"
"""`web.yaml:14`, set by `mesh apply`: file and 1-based line of the document."""


def provenance_of(kind: str, meta: ObjectMeta, field: str = "") -> Provenance:
    """The provenance of `field` in this object. A malformed annotation counts as absent."""
    file, _, line = meta.annotations.get(SOURCE_ANNOTATION, "").rpartition(":")
    known = bool(file) and line.isdecimal()
    return Provenance(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        field=field,
        file=file if known else "",
        line=int(line) if known else 0,
    )
