"""One schema registry for the tests of this folder: loading takes a few ms."""

from functools import cache

from mesh.api.schema import SchemaRegistry


@cache
def registry() -> SchemaRegistry:
    return SchemaRegistry()
