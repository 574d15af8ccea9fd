"""`python -m tests.soak.fuzz TARGET LIBFUZZER-ARGS`: one target under atheris, guided by coverage."""

import sys

import atheris

with atheris.instrument_imports(include=["mesh.http", "mesh.routing", "mesh.telemetry", "sidecar"]):
    from tests.soak.fuzz_targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]

    def test_one(data: bytes) -> None:
        target(data)

    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
