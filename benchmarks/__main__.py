"""`make bench`: every comparison in one run. Usage: python -m benchmarks [NAME ...]; without names, all of them."""

import importlib
import sys

SUITES = ("one_hop", "store", "cluster")
"""Modules of this package with a `main(arguments: list[str]) -> int`."""


def main(arguments: list[str]) -> int:
    """Run the suites named, all of them whatever their results; the exit code is the first that was not 0."""
    names = arguments or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}: want some of {', '.join(SUITES)}", file=sys.stderr)
        return 2
    first_failure = 0
    for name in names:
        print(f"\n=== {name}", flush=True)
        code: int = importlib.import_module(f"benchmarks.{name}").main([])
        first_failure = first_failure or code
    return first_failure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
