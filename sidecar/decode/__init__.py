"""xDS resources and bootstrap files -> the sidecar's snapshot. Pure: no sockets, no loop. Used by the control side only."""
