"""`python -m mesh.cli.detached_launcher FD OPTIONS`: the launcher that `mesh up --detach` leaves behind.

Reports go to descriptor FD as JSON lines; when the cluster is ready the reader goes away, and that is fine.
"""

import json
import os
import signal
import sys
from pathlib import Path

from mesh.cli.errors import CommandError
from mesh.cli.launcher import LaunchOptions
from mesh.cli.progress import ProgressPrinter
from mesh.cli.up import attached


def main() -> int:
    """Run until stopped. Returns the exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    fields = json.loads(sys.argv[2])
    fields["home"] = Path(fields["home"])
    fields["upstream_dns"] = tuple(fields["upstream_dns"])
    with os.fdopen(int(sys.argv[1]), "w") as stream:
        os.set_inheritable(stream.fileno(), False)
        report = ProgressPrinter(as_json=True, stream=stream)
        try:
            return attached(LaunchOptions(**fields), report)
        except CommandError as error:
            report("refused", reason=str(error), exit_code=error.exit_code)
            return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
