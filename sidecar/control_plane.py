"""How a sidecar reaches its control plane. Imports gRPC."""

from mesh.xds.client import AdsConfig, make_node
from sidecar.environment import Environment


def ads_config(environment: Environment, target: str) -> AdsConfig:
    """The stream's configuration; `target` leads to the control plane past our own interception."""
    identity = environment.identity
    return AdsConfig(
        target=target,
        server_name=environment.discovery[0],
        ca_file=environment.ca_file,
        token_file=environment.token_file,
        node=make_node(identity.node_id, identity.cluster, identity.metadata()),
    )
