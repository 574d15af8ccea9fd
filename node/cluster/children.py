"""Which processes make up a cluster, in the order they start. Pure but for the files' contents, which `write_configs` writes."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from node.cluster.config import ClusterConfig
from node.cluster.layout import NodeLayout, controlplane_config, node_config, node_layouts
from node.cluster.supervision import ChildSpec

CONTROL_PLANE = "controlplane"


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: the working directory is not a place to import from.
    return (sys.executable, "-P", "-m", module, *arguments)


def children_of(config: ClusterConfig) -> tuple[ChildSpec, ...]:
    """Control plane first, then each node's spawners and agent."""
    run, logs = config.home / "run", config.home / "logs"
    control_plane = ChildSpec(
        name=CONTROL_PLANE,
        argv=_python("controlplane", "--config", str(run / "controlplane.json")),
        log=logs / "controlplane.log",
        descriptors={} if config.api_fd is None else {3: config.api_fd},
    )
    return control_plane, *(spec for node in node_layouts(config) for spec in _node_children(config, node))


def _node_children(config: ClusterConfig, node: NodeLayout) -> Iterable[ChildSpec]:
    run, logs = config.home / "run", config.home / "logs"
    for name, argv, needs in (
        (f"{node.name}-spawner", _python("node.spawner", "--socket", str(node.run_dir / "exec.sock")), None),
        (f"{node.name}-sidecars", _python("sidecar.spawner", "--socket", str(node.run_dir / "sidecar.sock")), None),
        (node.name, _python("node", "--config", str(run / f"{node.name}.json")), run / f"{node.name}.kubeconfig"),
    ):
        yield ChildSpec(name=name, argv=argv, log=logs / f"{name}.log", netns=node.netns, needs=needs)


def write_configs(config: ClusterConfig) -> None:
    """Write controlplane.json and each NODE.json, and make the folders they name. Raises OSError."""
    for folder in (config.home / "run", config.home / "logs", config.home / "nodes"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(config.home / "run" / "controlplane.json", controlplane_config(config, has_api_fd=config.api_fd is not None))
    for node in node_layouts(config):
        (config.home / "nodes" / node.name).mkdir(mode=0o700, exist_ok=True)
        node.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(config.home / "run" / f"{node.name}.json", node_config(config, node))


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
    path.chmod(0o600)
