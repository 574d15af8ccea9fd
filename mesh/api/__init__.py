"""Kubernetes-shaped resources as plain data: resource names, codec, selectors, quantities, patches, typed views. Pure.

May not: touch sockets, files, clocks, chance or asyncio. May be imported by everyone. An object is a plain JSON mapping
(`Json`), so unknown fields survive; typed frozen views (msgspec) read it.
"""
