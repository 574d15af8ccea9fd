"""Which nodes may take a pod: one rule per file.

A node rule is a function of one pod and one node; its results are cached per kind of placement. A load rule looks at the load of all
nodes at once. Both answer a Refusal that people read. Pure.
"""
