"""Which of the nodes that may take a pod is best: one preference per file. Values are in [0, 1], 1 is best. Pure."""
