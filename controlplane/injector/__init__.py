"""Admission of pods into the mesh: adds the sidecar. The decision itself is pure and lives in `policies.injection`."""
