"""Containers as host processes in the pod's namespaces, started by spawners that outlive the agent."""
