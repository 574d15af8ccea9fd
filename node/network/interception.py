"""The rules that lead a pod's TCP through its sidecar.

Inbound: everything that arrives on the pod's interface goes to 15006. Outbound: everything goes to 15001, but for the sidecar's own
sockets (they carry the mark), loopback, and the node's link-local range. The sidecar finds the original destination with
SO_ORIGINAL_DST. A connection made straight to 15001 or 15006 is reset: the sidecar would dial itself for ever.
Source of the ports: Istio, "Ports used by Istio".
"""

SIDECAR_MARK = 1337
"""SO_MARK of the sidecar's upstream sockets."""
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
SIDECAR_PORTS = "15000-15021"
"""Ports of the sidecar itself: not redirected inbound."""

TABLE = "meshwork_interception"


def interception_rules() -> str:
    """The rules as nft text. They replace what an earlier call installed in the same namespace."""
    return f"""\
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain inbound {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "lo" return
        tcp dport {SIDECAR_PORTS} return
        meta l4proto tcp redirect to :{INBOUND_PORT}
    }}
    chain outbound {{
        type nat hook output priority -100; policy accept;
        meta mark {SIDECAR_MARK} return
        oifname "lo" ip daddr 127.0.0.0/8 return
        ip daddr 169.254.0.0/16 return
        meta l4proto tcp redirect to :{OUTBOUND_PORT}
    }}
    chain guard {{
        type filter hook input priority filter; policy accept;
        meta l4proto tcp ct state new ct original proto-dst {OUTBOUND_PORT} reject with tcp reset
        meta l4proto tcp ct state new ct original proto-dst {INBOUND_PORT} reject with tcp reset
    }}
}}
"""
