"""`python -m node.cluster --config FILE`: one cluster in namespaces of its own. Started by `mesh up`."""

import argparse
import sys
from pathlib import Path

from node.cluster.config import load_config
from node.cluster.errors import ClusterError
from node.cluster.init import ClusterInit
from node.cluster.isolation import isolate


def main(argv: list[str] | None = None) -> int:
    """Run until stopped. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m node.cluster", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="cluster.json, see node/cluster/config.py")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config)
        return isolate(lambda: ClusterInit(config).run())
    except ClusterError as error:
        print(f"node.cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
