"""etcd's model (revisions, ranges, CAS transactions, watches, leases, compaction) behind one protocol.

Only `controlplane.apiserver` may import this room. Every backend passes `tests/conformance/test_store.py`.
"""
