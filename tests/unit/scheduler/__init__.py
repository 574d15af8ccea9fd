"""controlplane.scheduler."""
