"""The `mesh` command. Top layer: may import `mesh.*` and `policies`, starts applications only as processes."""
