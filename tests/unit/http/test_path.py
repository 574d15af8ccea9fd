"""Paths: what is normalised, what is refused, and what must stay as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.http.path import EscapedSlashes, PathOptions, PathVerdict, normalise_path, normalise_target

pytestmark = pytest.mark.unit

NORMAL = PathOptions(normalize=True)
MERGE = PathOptions(merge_slashes=True)

NORMALISED = [
    (b"/", b"/"),
    (b"/a/b", b"/a/b"),
    (b"/a/./b", b"/a/b"),
    (b"/a/../b", b"/b"),
    (b"/a/..", b"/"),
    (b"/a/b/..", b"/a/"),
    (b"/a/.", b"/a/"),
    (b"/.", b"/"),
    (b"/..", b"/"),
    (b"/../../a", b"/a"),
    (b"/a/../../b", b"/b"),
    (b"/a//b/../c", b"/a//c"),
    (b"/a//../b", b"/a/b"),
    (b"//a", b"//a"),
    (b"/a/%2e%2e/b", b"/b"),
    (b"/a/%2E/b", b"/a/b"),
    (b"/a/.%2e/b", b"/b"),
    (b"/a\\b\\..\\c", b"/a/c"),
    (b"/%41%7e%2d%5F", b"/A~-_"),
    (b"/a%2fb%5Cc", b"/a%2fb%5Cc"),
    (b"/a/..%2fb", b"/a/..%2fb"),
    (b"/a%20%c3%A4", b"/a%20%c3%A4"),
    (b"/a%2525", b"/a%2525"),
    (b"/a%", b"/a%"),
    (b"/a%0", b"/a%0"),
    (b"/a%zz", b"/a%zz"),
    (b"/%%32e%%32e/b", b"/%252e%252e/b"),
    (b'/a|b^c"<>`{}', b"/a%7Cb%5Ec%22%3C%3E%60%7B%7D"),
    (b"/a/...", b"/a/..."),
    (b"/a/.hidden", b"/a/.hidden"),
    (b"/a/..;/b", b"/b"),
    (b"/a/..;x=1/b", b"/b"),
    (b"/a/.;x/b", b"/a/b"),
    (b"/x/a/%2e%2e;/b", b"/x/b"),
    (b"/a;x/../b", b"/b"),
    (b"/a/b;..", b"/a/b;.."),
    (b"/a/;../b", b"/a/;../b"),
    (b"/!$&'()*+,;=:@[]", b"/!$&'()*+,;=:@[]"),
]


@pytest.mark.parametrize(("path", "want"), NORMALISED, ids=[case[0].decode() for case in NORMALISED])
def test_path_is_normalised(path: bytes, want: bytes) -> None:
    assert normalise_target(path, NORMAL) == (PathVerdict.FORWARD, want)


@pytest.mark.parametrize("path", [b"/%00", b"/a%00b/../c"])
def test_escaped_nul_is_refused(path: bytes) -> None:
    assert normalise_target(path, NORMAL) == (PathVerdict.REJECT, path)


@pytest.mark.parametrize(
    ("target", "want"),
    [(b"//a", b"/a"), (b"/a//b///", b"/a/b/"), (b"/a//?x=//", b"/a/?x=//"), (b"//", b"/"), (b"/a//../b", b"/a/../b")],
)
def test_slashes_are_merged(target: bytes, want: bytes) -> None:
    assert normalise_target(target, MERGE) == (PathVerdict.FORWARD, want)


SLASHES = [
    (EscapedSlashes.KEEP_UNCHANGED, b"/a%2Fb", PathVerdict.FORWARD, b"/a%2Fb"),
    (EscapedSlashes.REJECT, b"/a%2Fb", PathVerdict.REJECT, b"/a%2Fb"),
    (EscapedSlashes.REJECT, b"/a%5cb", PathVerdict.REJECT, b"/a%5cb"),
    (EscapedSlashes.REJECT, b"/a?%2F", PathVerdict.FORWARD, b"/a?%2F"),
    (EscapedSlashes.UNESCAPE_AND_FORWARD, b"/a%2f..%5Cb?%2f", PathVerdict.FORWARD, b"/b?%2f"),
    (EscapedSlashes.UNESCAPE_AND_REDIRECT, b"/a%2f%2Fb?x", PathVerdict.REDIRECT, b"/a/b?x"),
    (EscapedSlashes.UNESCAPE_AND_REDIRECT, b"/a/b", PathVerdict.FORWARD, b"/a/b"),
]


@pytest.mark.parametrize(("action", "target", "verdict", "want"), SLASHES)
def test_escaped_slashes(action: EscapedSlashes, target: bytes, verdict: PathVerdict, want: bytes) -> None:
    options = PathOptions(normalize=True, merge_slashes=True, escaped_slashes=action)
    assert normalise_target(target, options) == (verdict, want)


def test_query_and_asterisk_are_left_alone() -> None:
    everything = PathOptions(normalize=True, merge_slashes=True, escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD)
    assert normalise_target(b"/a?/../%2e//%2f", everything) == (PathVerdict.FORWARD, b"/a?/../%2e//%2f")
    assert normalise_target(b"*", everything) == (PathVerdict.FORWARD, b"*")


def test_no_option_changes_nothing() -> None:
    assert not PathOptions()
    assert normalise_target(b"//a/../%2e%2f", PathOptions()) == (PathVerdict.FORWARD, b"//a/../%2e%2f")


_PATHS = st.lists(
    st.sampled_from(
        [b"/", b".", b"..", b";", b"%", b"2", b"e", b"E", b"%2e", b"%2f", b"%5C", b"\\", b"a", b"%25", b"|"]
    ),
    max_size=12,
).map(lambda parts: b"/" + b"".join(parts))


@given(path=_PATHS)
def test_normal_paths_are_normal(path: bytes) -> None:
    once = normalise_path(path)
    assert once is not None
    assert once.startswith(b"/")
    assert normalise_path(once) == once
    segments = [segment.partition(b";")[0] for segment in once.split(b"/")]
    assert not {b".", b".."} & set(segments)
    assert b"\\" not in once
