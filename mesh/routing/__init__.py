"""The compiled route table: hosts, path, header matches, weighted splits. Pure.

Built once when a snapshot is swapped, read per request. Chance comes in as an argument.
"""
