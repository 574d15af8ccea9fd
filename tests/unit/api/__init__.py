"""mesh.api."""
