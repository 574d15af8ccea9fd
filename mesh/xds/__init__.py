"""xDS v3: resources decoded into tables, subscription state, the ADS client.

Decoding is pure; only `mesh.xds.client` talks to the network.
"""
