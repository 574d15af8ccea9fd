"""The process that holds one cluster: PID 1 of its own namespaces, its network, and the supervision of everything in it.

Started by `mesh up` as `python -m node.cluster --config FILE`. May be imported by nobody; imports `mesh` only, and little of it:
it stays as long as the cluster and starts before everything else.
"""
