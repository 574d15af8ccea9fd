"""`make bench`: every comparison in one run. Usage: python -m benchmarks [NAME ...]; without names, all of them."""

import importlib
import sys

SUITES = ("one_hop", "store", "cluster")
"""Modules of this package with a `main(arguments: list[str]) -> int`."""


def main(arguments: list[str]) -> int:
    """Run the suites named; the exit code is the first that failed."""
    names = arguments or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}: want some of {', '.join(SUITES)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"\n=== {name}", flush=True)
        code: int = importlib.import_module(f"benchmarks.{name}").main([])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
