"""Comparisons with Envoy, HAProxy, nginx and etcd, each in one run on this machine. Not imported by the product."""
