"""`python -m sidecar --config FILE` as a process: it serves, says what is wrong, and ends in good order."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_port import free_port

pytestmark = pytest.mark.component

ROOT = Path(__file__).resolve().parents[2]


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def bootstrap_document(port: int, admin: int, **extra: Any) -> dict[str, Any]:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"path": "/hello"},
                            "direct_response": {"status": 200, "body": {"inline_string": "hi"}},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "in",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}],
    }
    return {"admin": {"address": _address(admin)}, "static_resources": {"listeners": [listener]}, **extra}


@contextmanager
def _running(config: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "--log-format", "json"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _get(url: str) -> tuple[int, bytes]:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_stand_alone_sidecar_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    config = tmp_path / "proxy.json"
    config.write_text(json.dumps(bootstrap_document(port, admin)))
    with _running(config) as process:
        assert _get(f"http://127.0.0.1:{port}/hello") == (200, b"hi")
        assert _get(f"http://127.0.0.1:{admin}/ready") == (200, b"ready\n")
        dump = json.loads(_get(f"http://127.0.0.1:{admin}/config_dump")[1])
        assert dump["routes"][0]["match"] == "exact /hello"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tracing": {}}, "tracing: this field is not supported here"),
        ({"static_resources": {"listners": []}}, "listners"),
    ],
)
def test_bad_file_is_named_with_exit_code_two(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    config = tmp_path / "proxy.json"
    config.write_text(json.dumps(bootstrap_document(1, 2, **extra)))
    with _running(config) as process:
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 2
        assert errors.startswith(f"sidecar: {config}: ")
        assert message in errors
        assert "Traceback" not in errors


def test_taken_port_is_named(tmp_path: Path) -> None:
    config = tmp_path / "proxy.json"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(json.dumps(bootstrap_document(port, free_port())))
        with _running(config) as process:
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 1
            assert f"cannot bind 127.0.0.1:{port}" in errors
            assert "Traceback" not in errors
