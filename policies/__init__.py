"""Policy kinds, validated and compiled to values with provenance (object, field path, line). Pure.

May import mesh.api, mesh.routing, mesh.resilience, mesh.authz and mesh.errors only.
"""
