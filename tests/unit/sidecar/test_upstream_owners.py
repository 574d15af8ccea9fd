"""Whatever owns an upstream connection has everything that the connection, the pool and tunnels ask of their owner."""

import ast
import inspect
from types import ModuleType

import pytest

from sidecar import pool, upstream
from sidecar.exchange import Exchange
from sidecar.hedging import Rival
from sidecar.shadow import Shadow

pytestmark = pytest.mark.unit

SHORT_WAY = {"branch", "complete", "begin_stream", "on_stream"}
"""Only asked of owners that say `is_plain`."""
POOL_ONLY = {"on_connection", "on_connect_failed", "stale_retries"}
"""Only asked of what waits in a queue; a rival has its connection already."""


def asked(module: ModuleType) -> set[str]:
    tree = ast.parse(inspect.getsource(module))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name | ast.Attribute)
        and (node.value.id if isinstance(node.value, ast.Name) else node.value.attr) in ("owner", "exchange")
    }


def members(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("__")}


def test_the_scan_finds_what_is_asked() -> None:
    assert asked(upstream) >= {"is_plain", "method", "on_response", "on_upstream_lost", "flush_response"}
    assert asked(pool) >= POOL_ONLY - {"stale_retries"}


@pytest.mark.parametrize(("owner", "spared"), [(Exchange, set()), (Shadow, SHORT_WAY), (Rival, SHORT_WAY | POOL_ONLY)])
def test_owners_have_what_is_asked_of_them(owner: type, spared: set[str]) -> None:
    missing = (asked(upstream) | asked(pool)) - members(owner) - spared
    assert not missing, f"{owner.__name__} lacks {', '.join(sorted(missing))}"
