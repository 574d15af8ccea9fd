"""`make bench`: every comparison. Usage: python -m benchmarks [NAME ...] or python -m benchmarks NAME OPTION ...

Without names, all of them with their defaults. `report` measures nothing: it writes pages and pictures from the results.
"""

import importlib
import sys

SUITES = {
    "data_plane": "benchmarks.data_plane.command",
    "store": "benchmarks.store",
    "cluster": "benchmarks.cluster",
    "routes": "benchmarks.route_matching",
    "report": "benchmarks.report",
}
"""Name -> module with a `main(arguments: list[str]) -> int`, in the order they run."""


def main(arguments: list[str]) -> int:
    """Run the suites named, all of them whatever their results; the exit code is the first that was not 0."""
    first_option = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:first_option], arguments[first_option:]
    unknown = [name for name in names if name not in SUITES]
    if unknown or (options and len(names) != 1):
        problem = f"no benchmark called {', '.join(unknown)}" if unknown else "options belong to one benchmark"
        print(f"{problem}: want some of {', '.join(SUITES)}, or one of them with its options", file=sys.stderr)
        return 2
    first_failure = 0
    for name in names or list(SUITES):
        print(f"\n=== {name}", flush=True)
        code: int = importlib.import_module(SUITES[name]).main(options)
        first_failure = first_failure or code
    return first_failure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
