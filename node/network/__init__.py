"""Namespaces, bridges, routes, interception rules, the service proxy and the cluster DNS."""
