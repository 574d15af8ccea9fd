"""Sans-IO HTTP codecs: bytes in, events and bytes out. Pure.

May not: own sockets, timers or routing decisions. Imported by the sidecar.
"""
