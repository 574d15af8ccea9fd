"""Envoy bootstrap files: what is read, and how errors name the place."""

import json
from typing import Any

import pytest
import yaml

from mesh.routing.table import Forward
from mesh.xds.errors import DecodeError
from sidecar.config import HttpFilter
from sidecar.decode.bootstrap import parse_bootstrap

pytestmark = pytest.mark.unit


def document() -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": address,
                    "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "web",
                    "type": "STRICT_DNS",
                    "load_assignment": {
                        "cluster_name": "web",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                }
            ],
        },
    }


@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
def test_yaml_and_json_say_the_same(dump: Any) -> None:
    found = parse_bootstrap(dump(document()), "proxy.yaml")
    assert found.admin == ("127.0.0.1", 0)
    (listener,) = found.snapshot.listeners
    one = listener.chains[0].filter
    assert isinstance(one, HttpFilter)
    assert one.inline_routes is not None
    action = one.inline_routes.virtual_hosts[0].routes[0].action
    assert isinstance(action, Forward)
    assert action.clusters[0].name == "web"
    assert found.snapshot.clusters["web"].endpoints[0].port == 8080


def _broken(change: str) -> str:
    broken = document()
    resources = broken["static_resources"]
    match change:
        case "unknown field":
            resources["listeners"][0]["colour"] = "red"
        case "unsupported":
            broken["overload_manager"] = {"refresh_interval": "1s"}
        case "dynamic":
            broken["dynamic_resources"] = {"cds_config": {"ads": {}}}
        case "missing cluster":
            resources["clusters"] = []
        case "eds":
            resources["clusters"][0] |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
        case "twice":
            resources["clusters"] *= 2
        case "nothing":
            resources["listeners"] = []
        case "name":
            address = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"][
                "address"
            ]
            resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = {
                "socket_address": {**address["socket_address"], "address": "web.example"}
            }
        case "list":
            return "[1, 2]"
        case "yaml":
            return "a: [1"
    return json.dumps(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown field", 'no field named "colour"'),
        ("unsupported", "overload_manager: this field is not supported"),
        ("dynamic", "dynamic_resources: this field is not supported"),
        ("missing cluster", "web is named by a route but missing; there are: none"),
        ("eds", r"static_resources.clusters\[0\].type: EDS needs a control plane"),
        ("twice", r"static_resources.clusters\[1\].name"),
        ("nothing", "static_resources.listeners: is empty"),
        ("name", r"static_resources.clusters\[0\].load_assignment.endpoints\[0\].lb_endpoints\[0\].endpoint.address"),
        ("list", "want an object with static_resources"),
        ("yaml", "not valid YAML or JSON"),
    ],
)
def test_errors_name_the_file_and_the_field(change: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        parse_bootstrap(_broken(change), "proxy.yaml")
    assert str(caught.value).startswith("proxy.yaml: ")
