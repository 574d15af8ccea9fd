"""Control loops. Each decides in a pure `plan` function and acts through `mesh.client`."""
