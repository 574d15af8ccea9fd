"""The worker node: agent, runtime, network. Talks to the control plane only through `mesh.client`."""
