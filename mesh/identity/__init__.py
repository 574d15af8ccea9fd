"""Keys, certificates, SPIFFE ids and TLS contexts.

The only room that imports `cryptography`'s x509 and builds `ssl` contexts. Private keys are written 0600 and never logged.
"""
