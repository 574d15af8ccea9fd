"""What a route does to its requests besides forwarding them: CORS, faults, rate limits, mirrors, session affinity.

Each concern is a `RequestFilter` of its own file, made once per route when a snapshot is swapped. A route without filters pays nothing:
its requests take the short way of `sidecar.exchange`. May import the pure rooms and `sidecar.config`; may not import inbound, outbound,
server or control.
"""
