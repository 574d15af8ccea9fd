"""Libraries and contracts that every Meshwork process shares.

Nothing here imports an application (`controlplane`, `node`, `sidecar`). The order of its rooms is fixed by
import-linter in `pyproject.toml`; `mesh.cli` is the one exception at the top: it may import everything in `mesh` and
`policies`, and starts the applications only as processes.
"""
