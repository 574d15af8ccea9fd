"""`python -m sidecar` in a pod with two workers, but with its own ports where a test wants them.

Usage: python -m tests.component.mesh_workers '{"discovery_port", "ca_file", "token_file", "admin", "ready"}'
"""

import json
import sys
from pathlib import Path

from mesh.telemetry.log_format import configure_logging
from sidecar.environment import Environment, Identity
from sidecar.own_ports import Ports
from sidecar.program import Program, run_reporting
from sidecar.workers.program import run_workers


def main() -> int:
    given = json.loads(sys.argv[1])
    identity = Identity(pod="web-1", namespace="shop", address="127.0.0.1", workload="web")
    program = Program(
        source=Environment(
            identity=identity,
            discovery=("127.0.0.1", given["discovery_port"]),
            ca_file=Path(given["ca_file"]),
            token_file=Path(given["token_file"]),
        ),
        ports=Ports(admin=("127.0.0.1", given["admin"]), metrics=None, ready=("127.0.0.1", given["ready"])),
        own=identity.peer(),
        service=identity.cluster,
        identity={"id": identity.node_id},
        worker_count=2,
        max_connections=0,
    )
    configure_logging(as_json=True)
    return run_reporting(lambda: run_workers(program))


if __name__ == "__main__":
    sys.exit(main())
