"""The control plane: API server, store, scheduler, controllers, discovery, injector, traces.

Its parts do not import each other (import-linter); they meet through the API. `controlplane.__main__` composes them.
"""
