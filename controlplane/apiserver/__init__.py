"""The Kubernetes-compatible API server: authentication, admission, validation, storage, watch, tables, OpenAPI.

Generic over the registry of kinds. The only room that sees the store.
"""
