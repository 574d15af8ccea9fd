"""Check a policy by itself, as JSON: for admission, `mesh apply` and `mesh analyze`."""

from mesh.api.errors import INVALID, FieldError, ViewError
from mesh.api.gateway import HttpRoute
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.resources import Json
from mesh.api.traffic_limit import TrafficLimit
from policies.destination_rule import compile_destination_rule
from policies.errors import Problems
from policies.http_route import compile_http_route
from policies.registry import OPEN_REGISTRY
from policies.traffic_limit import compile_traffic_limit
from policies.virtual_service import compile_virtual_service


def validate_policy(obj: Json) -> tuple[FieldError, ...]:
    """Everything wrong with a policy that needs no other object to be seen; empty for other kinds."""
    try:
        match obj.get("kind"):
            case "VirtualService":
                result: object = compile_virtual_service(VirtualService.of(obj), OPEN_REGISTRY)
            case "DestinationRule":
                result = compile_destination_rule(DestinationRule.of(obj), OPEN_REGISTRY)
            case "HTTPRoute":
                result = compile_http_route(HttpRoute.of(obj), OPEN_REGISTRY)
            case "TrafficLimit":
                result = compile_traffic_limit(TrafficLimit.of(obj))
            case _:
                return ()
    except ViewError as exc:
        return (FieldError("", INVALID, str(exc)),)
    return result.errors if isinstance(result, Problems) else ()
