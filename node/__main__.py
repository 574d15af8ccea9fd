"""`python -m node --config NODE.json`: the node agent. Its pods go on when it ends; a new one finds them again."""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mesh.client.rest import ClientConfig
from mesh.errors import MeshError
from mesh.net import loop
from node.agent.agent import NodeAgent
from node.config import NodeConfig, load_config
from node.network.config import NetworkConfig
from node.network.node_network import NodeNetwork

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    """Text with the extra fields behind the message, or one JSON object per line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS}
        if not self._as_json:
            return super().format(record) + "".join(f" {k}={v}" for k, v in extra.items())
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        fields = {"time": stamp, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields | {k: str(v) for k, v in extra.items()})


def network_config(config: NodeConfig) -> NetworkConfig:
    """The network room's part of the configuration."""
    return NetworkConfig(
        node_name=config.name,
        pod_cidr=config.pod_cidr,
        state_dir=config.state_dir,
        service_cidr=config.service_cidr,
        dns_address=config.dns_address,
        cluster_domain=config.cluster_domain,
        ports_socket=config.ports_socket,
        serves_node_ports=config.serves_node_ports,
        upstream_dns=config.upstream_dns,
    )


async def _run(config: NodeConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    agent = NodeAgent(config, ClientConfig.from_kubeconfig(config.kubeconfig), NodeNetwork(network_config(config)))
    current = asyncio.current_task()
    assert current is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, current.cancel)
    try:
        await agent.run()
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("the agent ends; its pods go on")


def _leaves(exc: BaseException | None) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    elif exc is not None:
        yield exc


def main(argv: list[str] | None = None) -> int:
    """Run the agent. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="NODE.json, see docs/contracts.md")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(as_json=arguments.log_format == "json"))
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler])
    try:
        loop.run(_run(load_config(arguments.config)))
    except MeshError as exc:
        print(f"node: {exc}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        # A part that ended takes the process with it: the supervisor starts a new one, which finds its pods.
        known, other = group.split(MeshError)
        for leaf in _leaves(known):
            print(f"node: {leaf}", file=sys.stderr)
        if other is not None:
            logging.getLogger(__name__).error("the agent cannot go on", exc_info=other)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
