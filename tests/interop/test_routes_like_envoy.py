"""The same routes and filters in real Envoy and in our sidecar: what clients and upstreams see, probe by probe.

Both start from one bootstrap file. Every difference that is meant stands in `DIFFERENCES` with its reason; any other one fails.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from tests.component.plane_harness import Origin, origin
from tests.loopback_port import free_port

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]
TYPE = "type.googleapis.com/envoy.extensions.filters"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Probe:
    """One request."""

    path: str
    headers: tuple[str, ...] = ()
    method: str = "GET"
    host: str = "web"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it. Header lines that say when and by whom are left out."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    upstream: str
    """The request line and the headers that routing is about, as the upstream got them; empty when it got nothing."""


DIFFERENCES = {
    "/seg/x": "a path-separated prefix rewritten to / gives /x here, //x in Envoy",
    "/seg/": "as above",
    "/prefoo": "a rewritten path begins with a slash here",
    "/branch": "x-envoy-original-host is told whoever rewrites the Host; Envoy forgets it for a branch's",
    "/reds/a": "as /seg/x, for redirects",
}


def answer(text: str, **match: Any) -> Json:
    return {"match": {"prefix": "/", **match}, "direct_response": {"status": 200, "body": {"inline_string": text}}}


def to(match: str | Json, *, filters: Json | None = None, add: Json | None = None, **action: Any) -> Json:
    made: Json = {
        "match": {"prefix": match} if isinstance(match, str) else match,
        "route": {"cluster": "up", **action},
        **(add or {}),
    }
    if filters is not None:
        made["typed_per_filter_config"] = filters
    return made


def header(name: str, **condition: Any) -> Json:
    return {"headers": [{"name": name, **condition}]}


CORS = {
    "@type": f"{TYPE}.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"exact": "https://a"}, {"safe_regex": {"regex": "https://[bc]"}}],
    "allow_methods": "GET",
    "max_age": "5",
    "allow_credentials": True,
    "expose_headers": "x-e",
    "allow_private_network_access": True,
}
LIMIT = {
    "@type": f"{TYPE}.http.local_ratelimit.v3.LocalRateLimit",
    "stat_prefix": "limit",
    "token_bucket": {"max_tokens": 1, "fill_interval": "600s"},
    "filter_enabled": {"default_value": {"numerator": 100}},
    "filter_enforced": {"default_value": {"numerator": 100}},
    "response_headers_to_add": [{"header": {"key": "x-limited", "value": "1"}}],
    "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
}
FAULT = {
    "@type": f"{TYPE}.http.fault.v3.HTTPFault",
    "abort": {"http_status": 418, "percentage": {"numerator": 100}},
    "delay": {"fixed_delay": "0.01s", "percentage": {"numerator": 100}},
    "headers": [{"name": "x-fault", "present_match": True}],
}
HASH = [
    {"header": {"header_name": "x-user"}, "terminal": True},
    {"cookie": {"name": "hc", "ttl": "10s", "path": "/hash", "attributes": [{"name": "SameSite", "value": "Lax"}]}},
]
ADDED = {
    "request_headers_to_add": [
        {"header": {"key": f"x-{number}", "value": "new"}, "append_action": action}
        for number, action in enumerate(
            ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
        )
    ],
    "request_headers_to_remove": ["x-gone"],
    "response_headers_to_add": [{"header": {"key": "x-back", "value": "1"}}],
}
REGEX = {"pattern": {"regex": "[0-9]"}, "substitution": "<\\0>"}


def level(name: str) -> Json:
    """Every level replaces x-level and appends to x-levels: who has the last word?"""
    return {
        "request_headers_to_add": [
            {"header": {"key": "x-level", "value": name}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "x-levels", "value": name}},
        ]
    }


SPLIT = {
    "clusters": [
        {"name": "up", "weight": 70, **level("seventy")},
        {"name": "up", "weight": 30, **level("thirty")},
    ],
    "header_name": "x-draw",
}
ROUTES: list[Json] = [
    {"match": {"prefix": "/split"}, "route": {"weighted_clusters": SPLIT}, **level("route")},
    {
        "match": {"prefix": "/branch"},
        "route": {
            "weighted_clusters": {"clusters": [{"name": "up", "weight": 1, "host_rewrite_literal": "its-own"}]},
            "host_rewrite_literal": "the-routes",
        },
    },
    {
        "match": {"path_separated_prefix": "/Sep", "case_sensitive": False},
        "direct_response": {"status": 200, "body": {"inline_string": "sep"}},
    },
    to("/cors", filters={"envoy.filters.http.cors": CORS}),
    to("/xcors", filters={"envoy.filters.http.cors": {**CORS, "forward_not_matching_preflights": False}}),
    to("/limit", filters={"envoy.filters.http.local_ratelimit": LIMIT}),
    to("/fault", filters={"envoy.filters.http.fault": FAULT}),
    to("/hash", hash_policy=HASH),
    to("/add", add=ADDED),
    to({"path_separated_prefix": "/seg"}, prefix_rewrite="/"),
    to("/pre", prefix_rewrite="x"),
    to({"safe_regex": {"regex": "/re/[0-9]+"}}, regex_rewrite=REGEX),
    to({"path": "/Exact", "case_sensitive": False}, prefix_rewrite="/changed"),
    to("/hh", host_rewrite_header="x-h", append_x_forwarded_host=True),
    to("/hp", host_rewrite_path_regex={"pattern": {"regex": "^/hp/(.*)$"}, "substitution": "\\1"}),
    to("/slow", cluster="slow", max_stream_duration={"max_stream_duration": "0.1s"}),
    answer("q raw", prefix="/q", query_parameters=[{"name": "a", "string_match": {"exact": "b%20c"}}]),
    answer("q first", prefix="/q", query_parameters=[{"name": "b", "string_match": {"exact": "1"}}]),
    answer("q absent", prefix="/q", query_parameters=[{"name": "p", "present_match": False}]),
    answer("q none", prefix="/q"),
    answer("inverted", prefix="/inv", **header("x", string_match={"exact": "a"}, invert_match=True)),
    answer("not inverted", prefix="/inv"),
    answer(
        "empty", prefix="/mis", **header("x", string_match={"exact": ""}, treat_missing_header_as_empty=True)
    ),
    answer("not empty", prefix="/mis"),
    answer("in", prefix="/range", **header("x", range_match={"start": -5, "end": 10})),
    answer("out", prefix="/range"),
    answer("absent", prefix="/there", **header("x", present_match=False)),
    answer("present", prefix="/there"),
    answer("joined", prefix="/join", **header("x", string_match={"exact": "1,2"})),
    answer("apart", prefix="/join"),
    answer("https", prefix="/scheme", **header(":scheme", string_match={"exact": "https"})),
    answer("http", prefix="/scheme"),
    answer("folded", prefix="/fold", **header("x", string_match={"suffix": "BC", "ignore_case": True})),
    answer("post", prefix="/meth", **header(":method", string_match={"exact": "POST"})),
    answer("other", prefix="/meth"),
    answer("never", prefix="/chance", runtime_fraction={"default_value": {"numerator": 0}}),
    answer("always", prefix="/chance", runtime_fraction={"default_value": {"numerator": 100}}),
    {
        "match": {"prefix": "/redx"},
        "redirect": {"regex_rewrite": {"pattern": {"regex": "^/redx/(.*)$"}, "substitution": "/n/\\1"},
                     "strip_query": True},
    },
    {"match": {"prefix": "/redq"}, "redirect": {"path_redirect": "/n?z", "strip_query": True}},
    {"match": {"prefix": "/redp"}, "redirect": {"prefix_rewrite": "/new", "https_redirect": True}},
    {"match": {"path_separated_prefix": "/reds"}, "redirect": {"prefix_rewrite": "/"}},
    {"match": {"prefix": "/redo"}, "redirect": {"port_redirect": 8443, "https_redirect": True}},
    {"match": {"prefix": "/redh"}, "redirect": {"host_redirect": "other:1", "response_code": "SEE_OTHER"}},
    to({"prefix": "/", **header("x-none")}),
]  # fmt: skip

PREFLIGHT = "Access-Control-Request-Method: GET"
PRIVATE = "Access-Control-Request-Private-Network: true"
PROBES = [
    *(Probe("/cors", (f"Origin: https://{name}",)) for name in "abx"),
    *(Probe(path, (f"Origin: https://{name}", PREFLIGHT, PRIVATE), "OPTIONS")
      for path in ("/cors", "/xcors") for name in "acx"),
    Probe("/cors", ("Origin: https://a",), "OPTIONS"),
    Probe("/limit"), Probe("/limit"), Probe("/limit"),
    Probe("/fault"), Probe("/fault", ("x-fault: 1",)),
    Probe("/hash"), Probe("/hash", ("x-user: 1",)), Probe("/hash", ("Cookie: x=y; hc=1",)),
    Probe("/add"), Probe("/add", ("x-0: old", "x-1: old", "x-2: old", "x-3: old", "x-gone: 1")),
    Probe("/seg"), Probe("/seg/x"), Probe("/seg/"), Probe("/segment"), Probe("/prefoo"),
    Probe("/re/12?3"), Probe("/re/12x"), Probe("/eXACT?q", ("x-envoy-original-path: /evil",)), Probe("/exact/"),
    Probe("/hh"), Probe("/hh", ("x-h: other",)), Probe("/hh", ("x-h: other", "x-forwarded-host: before")),
    Probe("/hh", ("x-h: other", "x-forwarded-host: web")),
    Probe("/hp/new"), Probe("/slow"),
    *(Probe(f"/q?{query}") for query in ("a=b%20c", "a=b+c", "b=1&b=2", "b=2&b=1", "p", "p=", "", "&&b=1")),
    *(Probe("/inv", headers) for headers in ((), ("x: a",), ("x: b",))),
    *(Probe("/mis", headers) for headers in ((), ("x: a",), ("x:",))),
    *(Probe("/range", (f"x: {value}",)) for value in ("5", "-5", "10", "+3", "x", "1.0", "-6", "007")),
    Probe("/range"), Probe("/there"), Probe("/there", ("x:",)),
    Probe("/join", ("x: 1", "x: 2")), Probe("/join", ("x: 1,2",)), Probe("/join", ("x: 1, 2",)),
    *(Probe("/scheme", (f"x-forwarded-proto: {name}",)) for name in ("http", "https")), Probe("/scheme"),
    Probe("/fold", ("x: abc",)), Probe("/fold", ("x: ab",)), Probe("/meth"), Probe("/meth", (), "POST"), Probe("/chance"),
    Probe("/redx/a?b=1"), Probe("/redq?a"), Probe("/redp/a?b=1", host="web:80"), Probe("/redp", host="web:81"),
    Probe("/reds"), Probe("/reds/a"), Probe("/redo", host="web:80"), Probe("/redo", host="[::1]:80"),
    Probe("/redo", ("x-forwarded-proto: https",), host="web:443"), Probe("/redh", host="web:80"),
    *(Probe("/split", (f"x-draw: {number}",)) for number in (0, 69, 70, 99, 100, 1234567890123, 2**64 - 1)),
    *(Probe(path) for path in ("/sep", "/SEP/x", "/sepx", "/sep?x", "/sep/")),
    Probe("/branch"),
    Probe("/nothing"),
]  # fmt: skip


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> Json:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "RING_HASH",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _filter(name: str, kind: str) -> Json:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{TYPE}.http.{kind}"}}


def bootstrap(port: int, admin: int, up: int, slow: int) -> str:
    limit = _filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit")
    limit["typed_config"]["stat_prefix"] = "limit"
    manager = {
        "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "name": "r",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": ROUTES, **level("host")}],
            **level("table"),
        },
        "http_filters": [
            _filter("cors", "cors.v3.Cors"),
            _filter("fault", "fault.v3.HTTPFault"),
            limit,
            _filter("router", "router.v3.Router"),
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return yaml.safe_dump(
        {
            "admin": {"address": _address(admin)},
            "static_resources": {
                "listeners": [{"name": "in", "address": _address(port), "filter_chains": [chain]}],
                "clusters": [_cluster("up", up), _cluster("slow", slow)],
            },
        }
    )


@contextlib.asynccontextmanager
async def _proxy(*command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")


async def _ask(port: int, probe: Probe) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{probe.method} {probe.path} HTTP/1.1", f"Host: {probe.host}", *probe.headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(head)
        return head + (await reader.readexactly(int(found[1])) if found else b"")
    finally:
        writer.close()


_OURS = ("date", "server", "connection", "content-type", "content-length", "x-envoy-upstream-service-time")
_ABOUT_ROUTING = ("host", "x-level", "x-levels", "x-0", "x-1", "x-2", "x-3", "x-gone", "x-h")
_COOKIE = re.compile(r'hc="[0-9a-f]{16}"')


def _fields(lines: Sequence[str]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))


async def _see(port: int, probe: Probe, up: Origin) -> Seen:
    before = len(up.requests)
    head, _, text = (await _ask(port, probe)).decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    status = int(first.split(" ")[1])
    headers = [(name, _COOKIE.sub("hc=...", value)) for name, value in _fields(lines) if name not in _OURS]
    upstream = ""
    if len(up.requests) > before:
        first, *lines = up.requests[before].decode().partition("\r\n\r\n")[0].split("\r\n")
        named = (*_ABOUT_ROUTING, "x-envoy-original-path", "x-envoy-original-host", "x-forwarded-host")
        upstream = f"{first} {[field for field in _fields(lines) if field[0] in named]}"
    # Texts of the proxy's own answers explain more here than in Envoy.
    body = text if status == 200 else ""
    return Seen(status, tuple(headers), body, upstream)


async def _all_of(command: Sequence[str], port: int, up: Origin) -> list[Seen]:
    async with _proxy(*command):
        async with asyncio.timeout(20):
            while True:
                try:
                    await _ask(port, Probe("/nothing"))
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        return [await _see(port, probe, up) for probe in PROBES]


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\naccess-control-allow-origin: up\r\n"
    b"access-control-expose-headers: up\r\nx-ratelimit-limit: up\r\n\r\nok"
)


def test_routes_and_filters_behave_as_in_envoy(tmp_path: Path) -> None:
    async def seen_by(name: str) -> list[Seen]:
        async with origin(lambda _: ANSWER) as up, origin(script=_never) as slow:
            port = free_port()
            config = tmp_path / f"{name}.yaml"
            config.write_text(bootstrap(port, free_port(), up.port, slow.port))
            if name == "envoy":
                binary = next((ROOT / ".envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy"))
                command = [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "off"]
            else:
                command = [sys.executable, "-m", "sidecar", "--config", str(config)]
            return await _all_of(command, port, up)

    async def check() -> None:
        envoy, ours = await seen_by("envoy"), await seen_by("sidecar")
        unmeant = [
            f"{probe}\n  Envoy {theirs}\n  ours  {own}"
            for probe, theirs, own in zip(PROBES, envoy, ours, strict=True)
            if (theirs == own) is (probe.path in DIFFERENCES)
        ]
        assert not unmeant, "\n".join(unmeant)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())
