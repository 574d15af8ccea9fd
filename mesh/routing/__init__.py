"""Routing as values and as decisions: tables with their index, matches, splits, rewrites, hashes, and what filters are told to do. Pure.

A table is compiled when a snapshot is swapped and read per request. Chance and time come in as arguments. Only `regex` imports RE2.
"""
