"""Tests, in tiers: unit, component, conformance, interop, e2e, chaos."""
