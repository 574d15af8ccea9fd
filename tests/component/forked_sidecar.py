"""Stands where `sidecar.__main__` stands in the spawner's tests: a module with a main(argv)."""

import os
import socket
import threading
from pathlib import Path

_stop = threading.Event()
if os.environ.get("FORKED_SIDECAR_THREAD"):
    threading.Thread(target=_stop.wait, daemon=True).start()


def main(argv: list[str]) -> int:
    """Say what the fork looks like from inside and end with the code asked for, or `--serve PORT` until SIGTERM."""
    if "--serve" in argv:
        with socket.create_server(("0.0.0.0", int(argv[argv.index("--serve") + 1]))) as server:
            while True:
                server.accept()[0].close()
    descriptors = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]
    print(f"pod {os.environ['POD_NAME']} arguments {argv} environment {sorted(os.environ)} descriptors {descriptors}")
    status = Path("/proc/self/status").read_text()
    print("capabilities", next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")))
    return int(argv[argv.index("--exit") + 1])
