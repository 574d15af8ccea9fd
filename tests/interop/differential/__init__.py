"""One corpus of requests, byte for byte through real Envoy and through our sidecar, and what the two made of it."""
