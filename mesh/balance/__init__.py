"""Load balancing policies over endpoint sets. Pure.

Chance and time come in as arguments. May not open connections; it only picks.
"""
