"""Regular expressions: RE2's rules, linear time, imported only when there is one."""

import subprocess
import sys

import pytest

from mesh.routing.errors import RouteTableError
from mesh.routing.match import MatchKind, PathKind, PathMatch, StringMatch
from mesh.routing.matcher import CompiledTable
from mesh.routing.regex import compile_regex, compile_substitution
from mesh.routing.table import Forward, RegexRewrite, Route, RouteMatch, RouteTable, VirtualHost, WeightedCluster

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a|ab", b"ab", True), ("a", b"ab", False), ("", b"", True), (".*", b"a\nb", False), ("(?i)AB", b"ab", True),
        ("\\d+", b"12", True), ("[[:alpha:]]+", b"ab", True), ("é", "é".encode(), True), (".", b"\xff", False),
    ],
)  # fmt: skip
def test_the_whole_text_must_match_by_re2s_rules(pattern: str, text: bytes, matches: bool) -> None:
    assert compile_regex(pattern)(text) is matches


def test_no_pattern_takes_more_than_linear_time() -> None:
    """Backtracking would take 2**30 steps."""
    assert not compile_regex("(a|a)*(a+)+$")(b"a" * 30 + b"b")
    assert not compile_regex("(.*)*x")(b"a" * 100_000)


@pytest.mark.parametrize("pattern", ["(", "a{2000}", "(?=a)", "\\1", "[b-a]"])
def test_what_re2_cannot_do_is_an_error(pattern: str) -> None:
    with pytest.raises(RouteTableError, match="is not a regular expression"):
        compile_regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "want"),
    [
        ("[0-9]", "<\\0>", b"a12", b"a<1><2>"),
        ("^/(a)?(.*)$", "/\\2\\1", b"/b", b"/b"),
        ("a", "\\\\", b"a", b"\\"),
        ("x*", "-", b"ab", b"-a-b-"),
        ("b", "", b"abc", b"ac"),
    ],
)
def test_substitutions(pattern: str, substitution: str, text: bytes, want: bytes) -> None:
    assert compile_substitution(pattern, substitution)(text) == want


@pytest.mark.parametrize("substitution", ["\\1", "\\x", "a\\"])
def test_wrong_substitutions_are_found_when_the_table_is_compiled(substitution: str) -> None:
    rewrite = RegexRewrite(pattern="a", substitution=substitution)
    action = Forward(clusters=(WeightedCluster(name="c"),), regex_rewrite=rewrite)
    host = VirtualHost(name="v", domains=("*",), routes=(Route(name="r", action=action),))
    with pytest.raises(RouteTableError, match=r'virtual host "v", route 0 "r".*neither a group'):
        CompiledTable(RouteTable(name="t", virtual_hosts=(host,)))


@pytest.mark.parametrize("has_regex", [False, True])
def test_library_is_imported_only_for_a_regex(has_regex: bool) -> None:
    kind = "REGEX" if has_regex else "PREFIX"
    program = (
        "import sys, sidecar.server\n"
        "from mesh.routing.table import *\n"
        "from mesh.routing.matcher import CompiledTable\n"
        f"match = RouteMatch(path=PathMatch(kind=PathKind.{kind}, value='/a'))\n"
        "host = VirtualHost(name='v', domains=('*',), routes=(Route(match=match, action=DirectResponse(status=200)),))\n"
        "CompiledTable(RouteTable(name='t', virtual_hosts=(host,)))\n"
        "print('re2' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(has_regex)


def test_case_is_ignored_when_asked() -> None:
    match = StringMatch(kind=MatchKind.REGEX, value="a.c", ignore_case=True)
    assert compile_regex(match.value, ignore_case=match.ignore_case)(b"ABC")
    path = PathMatch(kind=PathKind.REGEX, value="/a", ignore_case=True)
    host = VirtualHost(
        name="v",
        domains=("*",),
        routes=(Route(match=RouteMatch(path=path), action=Forward(clusters=(WeightedCluster(name="c"),))),),
    )
    assert CompiledTable(RouteTable(name="t", virtual_hosts=(host,))).find_host(b"x") is not None
