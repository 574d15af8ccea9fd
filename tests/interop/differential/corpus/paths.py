"""Paths that a server behind may read otherwise than a route does."""

from tests.interop.differential.case import Case, case, get

_NORMALIZE = (
    b"/a/../b", b"/a/./b", b"/a/..", b"/a/.", b"/..", b"/../a", b"/a/../../b", b"/a/%2e%2e/b", b"/a/%2E/b", b"/a\\..\\b", b"/%41%7e",
    b"/a%2fb", b"/a%00b", b"/a%0", b"/a%zz", b"/a//b/../c", b"/a//../b", b"/a|b^c<>`{}", b"/a/...", b"/a/..;/b", b"/a/..;x=1/b",
    b"/x/a/%2e%2e;/b", b"/a;x/../b", b"/%c3%a4", b"/a/..?x=/../y", b"/%%32e%%32e/b", b"/a%2525", b"//a", b"/a/..%2fb", b"/[a]",
)  # fmt: skip
_PLAIN = (b"/a/../b", b"/a/%2e%2e/b", b"//a//b", b"/a%2fb", b"/a%00b", b"/a/..;/b")
_MERGE = (b"//a", b"/a//b", b"/a///", b"/a//?x=//", b"//", b"/a//../b")
_ALL = (b"//a", b"/a%2f%2Fb", b"/a%5c..%5Cb", b"/a%2f..%2fb?%2f")
_SLASHES = (b"/a%2fb", b"/a%5Cb?x=%2f", b"/a?%2f", b"/a%2f../b", b"/a/b")

PATHS: tuple[Case, ...] = tuple(
    case(f"{listener} {target.decode()}", get(target=target), listener=listener)
    for listener, targets in (
        ("plain", _PLAIN),
        ("normalize", _NORMALIZE),
        ("merge", _MERGE),
        ("paths", _ALL),
        ("slashes_reject", _SLASHES),
        ("slashes_redirect", _SLASHES),
    )
    for target in targets
)
