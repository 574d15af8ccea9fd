"""Puts pods on nodes: queue, filters, scores, binding through the API."""
