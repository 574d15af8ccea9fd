"""The schemas of Meshwork's own kinds and of the kinds of others that it carries out, as OpenAPI v3.

They name exactly the fields that are carried out (or refused with a reason of their own); a test holds them equal to the
typed views in `mesh.api.node`, `mesh.api.networking`, `mesh.api.gateway` and
`mesh.api.traffic_limit`.
"""

from mesh.api.resources import DESTINATION_RULES, HOST_IMAGES, HTTP_ROUTES, TRAFFIC_LIMITS, VIRTUAL_SERVICES, Json
from mesh.api.schema_build import TEXTS, list_of, object_of, text
from mesh.api.schema_gateway import HTTP_ROUTE
from mesh.api.schema_limits import TRAFFIC_LIMIT
from mesh.api.schema_networking import DESTINATION_RULE, VIRTUAL_SERVICE

_ENV = object_of("A plain environment variable.", ("name",), name=text("Name."), value=text("Value."))
_HOST_IMAGE = object_of(
    "A command of the host that stands in for container images.",
    ("spec",),
    spec=object_of(
        "Which images, and what runs instead.",
        ("match",),
        match=list_of(
            "Image references; * stands for any run of characters.", text("Pattern.", minLength=1), minItems=1
        ),
        command=list_of("As an image's ENTRYPOINT; a container's command replaces it.", TEXTS),
        args=list_of("As an image's CMD; a container's args replaces it.", TEXTS),
        env=list_of("As an image's ENV; the container's own win.", _ENV),
        workingDir=text("As an image's WORKDIR."),
    ),
)

OWN_SCHEMAS: dict[tuple[str, str], Json] = {
    HOST_IMAGES.key: _HOST_IMAGE,
    VIRTUAL_SERVICES.key: VIRTUAL_SERVICE,
    DESTINATION_RULES.key: DESTINATION_RULE,
    HTTP_ROUTES.key: HTTP_ROUTE,
    TRAFFIC_LIMITS.key: TRAFFIC_LIMIT,
}
"""(group, plural) -> openAPIV3Schema; metadata, apiVersion and kind are implied."""
