"""What a proxy takes out, puts in and leaves alone: hop-by-hop, forwarded, identity and trace headers."""

from tests.interop.differential.case import Case, case, get, post

_TRACE = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


def _parent(value: bytes, *more: bytes) -> bytes:
    return get(b"traceparent: " + value, *more)


_NOMINATED = (
    b"x-hop", b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"x-forwarded-for",
    b"x-forwarded-proto", b"x-request-id", b"traceparent", b"content-type", b"cache-control", b"via", b":path", b"te",
)  # fmt: skip
_INTERNAL = (
    b"x-envoy-internal: true", b"x-envoy-retry-on: 5xx", b"x-envoy-max-retries: 3", b"x-envoy-upstream-rq-timeout-ms: 9000",
    b"x-envoy-expected-rq-timeout-ms: 5", b"x-envoy-force-trace: 1", b"x-envoy-attempt-count: 9",
    b"x-envoy-original-path: /x", b"x-envoy-decorator-operation: op", b"x-envoy-downstream-service-cluster: c",
    b"x-envoy-ip-tags: t", b"x-envoy-hedge-on-per-try-timeout: true",
)  # fmt: skip

FORWARDING: tuple[Case, ...] = (
    case("hop-by-hop", get(b"Keep-Alive: 5", b"Proxy-Connection: x", b"TE: trailers", b"X-Kept: 1")),
    case("te with connection", get(b"Connection: TE", b"TE: trailers")),
    case("te of a coding", get(b"Connection: TE", b"TE: gzip, trailers;q=0.5")),
    case("trailer announced", get(b"Trailer: X-Sum")),
    case("proxy-authorization", get(b"Proxy-Authorization: Basic eA==")),
    case("proxy-authenticate", get(b"Proxy-Authenticate: Basic")),
    *[
        case(f"connection names {name.decode()}", post(b"Connection: " + name, b"Content-Length: 2", b"X-Hop: 1",
             b"Authorization: a", b"Cookie: c", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https",
             b"X-Request-Id: id-1", b"Content-Type: t", b"Cache-Control: no-store", b"Via: v", b"TE: trailers",
             body=b"hi"))
        for name in _NOMINATED
    ],
    case("connection names twelve", get(b"Connection: " + b",".join(b"x-%d" % n for n in range(12)), b"x-3: v")),
    case("connection twice", get(b"Connection: x-a", b"Connection: x-b", b"X-A: 1", b"X-B: 1", b"X-C: 1")),
    case("connection empty", get(b"Connection:")),
    case("connection with empty members", get(b"Connection: , ,x-a,", b"X-A: 1")),
    case("forwarded-for", get(b"X-Forwarded-For: 1.2.3.4")),
    case("forwarded-for twice", get(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-For: 5.6.7.8")),
    case("forwarded-proto", get(b"X-Forwarded-Proto: https")),
    case("forwarded-proto nonsense", get(b"X-Forwarded-Proto: gopher")),
    case("forwarded-proto twice", get(b"X-Forwarded-Proto: http", b"X-Forwarded-Proto: https")),
    case("forwarded-host", get(b"X-Forwarded-Host: evil.example")),
    case("forwarded-port", get(b"X-Forwarded-Port: 1")),
    case("forwarded of rfc 7239", get(b"Forwarded: for=1.2.3.4")),
    case("real-ip", get(b"X-Real-IP: 1.2.3.4")),
    case("edge nothing", get(), listener="edge"),
    case("edge forwarded-for", get(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https"), listener="edge"),
    case("edge forwarded-host", get(b"X-Forwarded-Host: evil.example"), listener="edge"),
    case("edge request id", get(b"X-Request-Id: mine"), listener="edge"),
    case("edge request id kept", get(b"X-Request-Id: mine"), listener="keep_id"),
    case("edge internal headers", get(*_INTERNAL), listener="edge"),
    case("edge hops forwarded-for", get(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https"), listener="hops"),
    case("edge hops nothing", get(), listener="hops"),
    case("edge without append", get(b"X-Forwarded-For: 1.2.3.4"), listener="skip_xff"),
    case("internal headers", get(*_INTERNAL)),
    case("external address", get(b"x-envoy-external-address: 1.2.3.4"), listener="edge"),
    case("client certificate spoofed", get(b"X-Forwarded-Client-Cert: By=spiffe://evil")),
    case("peer metadata spoofed", get(b"X-Envoy-Peer-Metadata: eA==", b"X-Envoy-Peer-Metadata-Id: evil")),
    case("request id kept", get(b"X-Request-Id: mine")),
    case("request id twice", get(b"X-Request-Id: one", b"X-Request-Id: two")),
    case("request id empty", get(b"X-Request-Id:")),
    case("via", get(b"Via: 1.1 other"), listener="via"),
    case("via off", get(b"Via: 1.1 other")),
    case("max-forwards of OPTIONS", get(b"Max-Forwards: 3", method=b"OPTIONS")),
    case("max-forwards of OPTIONS run out", get(b"Max-Forwards: 0", method=b"OPTIONS")),
    case("max-forwards of TRACE run out", get(b"Max-Forwards: 0", method=b"TRACE")),
    case("max-forwards of GET", get(b"Max-Forwards: 0")),
    case("user agent", get(b"User-Agent: me")),
    case("date and server of a request", get(b"Date: d", b"Server: s")),
    case("trace good", _parent(b"00-" + _TRACE + b"-01", b"tracestate: a=1,b=2")),
    case("trace not sampled", _parent(b"00-" + _TRACE + b"-00")),
    case("trace flags of level 2", _parent(b"00-" + _TRACE + b"-03")),
    case("trace unknown flags", _parent(b"00-" + _TRACE + b"-ff")),
    case("trace of a later version", _parent(b"cc-" + _TRACE + b"-01-more")),
    case("trace version ff", _parent(b"ff-" + _TRACE + b"-01", b"tracestate: a=1")),
    case("trace in capitals", _parent(b"00-" + _TRACE.upper() + b"-01", b"tracestate: a=1")),
    case("trace zero", _parent(b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"tracestate: a=1")),
    case("trace too long", _parent(b"00-" + _TRACE + b"-01-x", b"tracestate: a=1")),
    case("trace twice", _parent(b"00-" + _TRACE + b"-01", b"traceparent: 00-" + _TRACE + b"-01")),
    case("trace state without parent", get(b"tracestate: a=1")),
    case("trace state twice", _parent(b"00-" + _TRACE + b"-01", b"tracestate: a=1", b"TraceState: b=2")),
    case("trace state with a bad key", _parent(b"00-" + _TRACE + b"-01", b"tracestate: A=1")),
    case("trace state key twice", _parent(b"00-" + _TRACE + b"-01", b"tracestate: a=1,a=2")),
    case("trace state of 33 members", _parent(b"00-" + _TRACE + b"-01", b"tracestate: " + b",".join(b"k%d=1" % n for n in range(33)))),
    case("trace state with empty members", _parent(b"00-" + _TRACE + b"-01", b"tracestate: a=1,, ,b=2")),
    case("trace state empty", _parent(b"00-" + _TRACE + b"-01", b"tracestate:")),
)  # fmt: skip
