"""The command line of the data plane's benchmarks, up to where measuring begins."""

from pathlib import Path

import pytest

from benchmarks.data_plane import command
from benchmarks.data_plane.machine import MissingToolError, check_tools

pytestmark = pytest.mark.unit


def test_missing_programs_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"make setup-bench.*apt-get install wrk nghttp2-client"):
        check_tools()


def test_a_missing_program_ends_the_command_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["--only", "heads", "--output", str(tmp_path)]) == 2
    assert "missing programs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_list_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert "heads/unique" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--seconds", "1"], "--seconds must be >= 2"),
        (["--rounds", "0"], "--rounds >= 1"),
        (["--only", "heds"], 'no case called "heds"'),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_the_command_in_results_has_no_folder() -> None:
    options = command._parser().parse_args(["--only", "heads", "churn", "--output", "/somewhere"])
    assert command._command(options) == "python -m benchmarks data_plane --only heads churn --rounds 3 --seconds 2"
