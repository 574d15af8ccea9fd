"""What the cluster process writes for the others."""

import json
from pathlib import Path

import pytest

from node.cluster.children import children_of
from node.cluster.config import ClusterConfig, load_config
from node.cluster.errors import ClusterError
from node.cluster.layout import (
    cluster_link_commands,
    controlplane_config,
    node_config,
    node_layouts,
    node_link_commands,
)
from node.config import NodeConfig
from node.config import load_config as load_node_config

pytestmark = pytest.mark.unit


def config(tmp_path: Path, nodes: int = 3) -> ClusterConfig:
    return ClusterConfig(
        home=tmp_path, nodes=nodes, external_server="https://127.0.0.1:6443", upstream_dns=("1.2.3.4",)
    )


def test_the_node_agent_takes_the_file_we_write(tmp_path: Path) -> None:
    cluster = config(tmp_path)
    written = tmp_path / "node-2.json"
    written.write_text(json.dumps(node_config(cluster, node_layouts(cluster)[1])))
    node = load_node_config(written)
    assert isinstance(node, NodeConfig)
    assert (node.name, node.address, node.pod_cidr) == ("node-2", "172.30.0.12", "10.244.2.0/24")
    assert node.upstream_dns == ("1.2.3.4",)
    assert not node.serves_node_ports


def test_only_the_first_node_serves_node_ports(tmp_path: Path) -> None:
    cluster = config(tmp_path)
    assert [node_config(cluster, node)["serves_node_ports"] for node in node_layouts(cluster)] == [True, False, False]


def test_control_plane_gets_the_socket_as_descriptor_three(tmp_path: Path) -> None:
    assert controlplane_config(config(tmp_path), has_api_fd=True)["api_fd"] == 3
    assert controlplane_config(config(tmp_path), has_api_fd=False)["api_fd"] is None
    assert children_of(ClusterConfig(home=tmp_path, external_server="x", api_fd=17))[0].descriptors == {3: 17}


def test_agents_wait_for_their_kubeconfig_and_spawners_do_not(tmp_path: Path) -> None:
    needs = {child.name: child.needs for child in children_of(config(tmp_path, nodes=1))}
    assert needs == {
        "controlplane": None,
        "node-1-spawner": None,
        "node-1-sidecars": None,
        "node-1": tmp_path / "run" / "node-1.kubeconfig",
    }


def test_every_node_knows_the_way_to_every_other_nodes_pods(tmp_path: Path) -> None:
    nodes = node_layouts(config(tmp_path))
    assert "route add 10.244.3.0/24 via 172.30.0.13\n" in cluster_link_commands(nodes)
    own = node_link_commands(nodes[0], nodes)
    assert "route add 10.244.2.0/24 via 172.30.0.12\n" in own
    assert "10.244.1.0/24" not in own


@pytest.mark.parametrize(
    ("text", "complaint"),
    [('{"home": "/h", "external_server": "x", "nodes": 0}', "nodes is 0, want 1 to 100"),
     ('{"home": "h", "external_server": "x"}', "is not absolute"),
     ('{"home": "/h", "external_server": "x", "node": 1}', "unknown field `node`"),
     ('{"home": 7, "external_server": "x"}', "home"),
     ("{", "truncated")],
)  # fmt: skip
def test_bad_configuration_names_the_field(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)
    with pytest.raises(ClusterError, match=complaint):
        load_config(path)
