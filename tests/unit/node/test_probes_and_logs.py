"""Probe verdicts, log lines and options, pod files, volumes."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest

from mesh.api.pod import Container, KeyToPath, Pod, Probe
from mesh.net.log_pump import LogPump, LogWriter, format_chunk
from mesh.net.spawn import LogFile
from node.agent.kubelet_api import log_options
from node.agent.launcher import capability_names
from node.agent.pod_files import hosts_file, resolv_conf
from node.agent.prober import port_number
from node.agent.probes import ProbeState, eager_waits_s, observe
from node.config import NodeConfig, load_config
from node.errors import ContainerConfigError, LogError, NodeConfigError, VolumeError
from node.runtime.logs import LogOptions, last_lines_offset, read_log
from node.runtime.volumes import container_mounts, selected_files, write_files

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("results", "success", "failure", "verdicts"),
    [
        ("T", 1, 3, [True]),
        ("FFF", 1, 3, [None, None, False]),
        ("FFTFF", 1, 3, [None, None, True, True, True]),
        ("TFFF", 1, 3, [True, True, True, False]),
        ("TT", 2, 3, [None, True]),
        ("TFTT", 2, 1, [None, False, False, True]),
    ],
)
def test_verdicts_need_results_in_a_row(results: str, success: int, failure: int, verdicts: list[bool | None]) -> None:
    probe = Probe(success_threshold=success, failure_threshold=failure)
    state, seen = ProbeState(), []
    for result in results:
        state = observe(probe, state, result == "T")
        seen.append(state.verdict)
    assert seen == verdicts


@pytest.mark.parametrize("period", [1, 2, 10, 60])
def test_extra_looks_end_before_the_period_does(period: int) -> None:
    waits = eager_waits_s(Probe(period_seconds=period))
    assert sum(waits) < period
    assert list(waits) == sorted(waits)
    assert eager_waits_s(Probe(period_seconds=period, success_threshold=2)) == ()


def test_ports_may_be_named() -> None:
    container = Container.of({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]})
    assert port_number("http", container) == 8080
    assert port_number("81", container) == 81
    for bad in ("grpc", 0, 70000):
        with pytest.raises(ContainerConfigError):
            port_number(bad, container)


@pytest.mark.parametrize(
    ("data", "out", "rest"),
    [
        (b"one\n", b"t stdout F one\n", b""),
        (b"one\ntwo", b"t stdout F one\n", b"two"),
        (b"\n\n", b"t stdout F \nt stdout F \n", b""),
        (b"part", b"", b"part"),
        (b"x" * 16384 + b"y", b"t stdout P " + b"x" * 16384 + b"\n", b"y"),
    ],
)
def test_output_becomes_log_lines(data: bytes, out: bytes, rest: bytes) -> None:
    assert format_chunk(b"t", b"stdout", data) == (out, rest)


def write_log(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


def read(path: Path, options: LogOptions) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in read_log(path, options, lambda: False)])

    return asyncio.run(collect())


LINES = [b"2026-01-01T00:00:0%d.000000000Z stdout F line %d\n" % (i, i) for i in range(6)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LogOptions(), b"line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n"),
        (LogOptions(tail_lines=2), b"line 4\nline 5\n"),
        (LogOptions(tail_lines=4), b"line 2\nline 3\nline 4\nline 5\n"),
        (LogOptions(tail_lines=0), b""),
        (LogOptions(tail_lines=100), b"line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n"),
        (LogOptions(since="2026-01-01T00:00:04.000000000Z"), b"line 4\nline 5\n"),
        (LogOptions(limit_bytes=10), b"line 0\nlin"),
        (LogOptions(tail_lines=1, timestamps=True), b"2026-01-01T00:00:05.000000000Z line 5\n"),
    ],
)
def test_logs_are_read_over_rotated_files(tmp_path: Path, options: LogOptions, expected: bytes) -> None:
    write_log(tmp_path / "1.log.2", LINES[:2])
    write_log(tmp_path / "1.log.1", LINES[2:3])
    write_log(tmp_path / "1.log", LINES[3:])
    assert read(tmp_path / "1.log", options) == expected


def test_parts_of_a_long_line_are_joined(tmp_path: Path) -> None:
    write_log(tmp_path / "1.log", [b"t stdout P ab\n", b"t stdout F cd\n"])
    assert read(tmp_path / "1.log", LogOptions()) == b"abcd\n"


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LogError):
        read(tmp_path / "1.log", LogOptions())


def test_the_tail_of_a_large_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(50_000)))
    offset, found = last_lines_offset(path, 20_000)
    assert found == 20_000
    assert path.read_bytes()[offset:].startswith(b"30000\n")


def test_a_pump_writes_what_is_left_when_it_finishes(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log = LogFile(path=str(tmp_path / "log"))
    writer = LogWriter(log)
    pump = LogPump(reading, "stderr", writer)
    os.write(writing, b"a\nb")
    os.close(writing)
    pump.finish()
    writer.close()
    assert [line.split(b" ", 1)[1] for line in (tmp_path / "log").read_bytes().splitlines()] == [
        b"stderr F a",
        b"stderr F b",
    ]


@pytest.mark.parametrize(
    "query", [{"tailLines": "-1"}, {"tailLines": "x"}, {"sinceTime": "yesterday"}, {"limitBytes": "9" * 20}]
)
def test_bad_log_options_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(LogError):
        log_options(query)


def test_since_seconds_counts_back() -> None:
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert log_options({"sinceSeconds": "30"}, now).since == "2026-01-01T00:00:30.000000000Z"


CONFIG = NodeConfig(
    name="n", address="172.30.0.11", pod_cidr="10.244.1.0/24", state_dir=Path("/s"), run_dir=Path("/r"),
    kubeconfig=Path("/k"), exec_socket=Path("/e"), sidecar_socket=Path("/f"), ca_file=Path("/c"),
)  # fmt: skip


def with_dns(**spec: object) -> Pod:
    return Pod.of({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "nameserver 9.9.9.9\n"),
        ({"hostNetwork": True}, "nameserver 9.9.9.9\n"),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}],
                },
            },
            "nameserver 1.1.1.1\nsearch x\noptions ndots:2\n",
        ),
    ],
)
def test_resolv_conf_follows_the_dns_policy(spec: dict[str, object], expected: str) -> None:
    assert resolv_conf(with_dns(**spec), CONFIG, "nameserver 9.9.9.9\n") == expected


def test_hosts_name_the_pod_and_its_aliases() -> None:
    text = hosts_file(
        with_dns(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}], subdomain="web"), "10.0.0.9", CONFIG
    )
    assert "10.0.0.9 p.web.shop.svc.cluster.local p\n" in text
    assert "1.2.3.4 a b\n" in text


def test_volume_files_can_be_chosen_and_stay_inside(tmp_path: Path) -> None:
    content = {"a": b"1", "b": b"2"}
    all_files = selected_files(content, (), 0o644, "configmap", optional=False)
    assert set(all_files) == {PurePosixPath("a"), PurePosixPath("b")}
    chosen = selected_files(content, (KeyToPath(key="a", path="x/y", mode=0o400),), 0o644, "configmap", optional=False)
    write_files(tmp_path / "v", all_files)
    write_files(tmp_path / "v", chosen)
    assert [str(p.relative_to(tmp_path / "v")) for p in sorted((tmp_path / "v").rglob("*"))] == ["x", "x/y"]
    assert (tmp_path / "v/x/y").stat().st_mode & 0o777 == 0o400
    with pytest.raises(VolumeError, match='non-existent key "z"'):
        selected_files(content, (KeyToPath(key="z", path="z"),), 0o644, "configmap", optional=False)
    for bad in ("../up", "/abs", ""):
        with pytest.raises(ContainerConfigError):
            selected_files(content, (KeyToPath(key="a", path=bad),), 0o644, "configmap", optional=False)


def test_a_sub_path_may_not_leave_its_volume(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "out").symlink_to("/etc")

    def mounts(sub_path: str) -> object:
        mount = {"name": "v", "mountPath": "/m", "subPath": sub_path}
        return container_mounts(Container.of({"name": "c", "volumeMounts": [mount]}), {"v": volume})

    assert mounts("fine")
    for bad in ("out", "../up"):
        with pytest.raises(ContainerConfigError):
            mounts(bad)


@pytest.mark.parametrize(
    ("wanted", "has", "lacks"),
    [
        ({}, "CHOWN", "NET_RAW"),
        ({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "NET_BIND_SERVICE", "CHOWN"),
        ({"add": ["CAP_NET_RAW"]}, "NET_RAW", "SYS_ADMIN"),
        ({"drop": ["chown"]}, "KILL", "CHOWN"),
    ],
)
def test_capabilities_follow_the_security_context(wanted: dict[str, list[str]], has: str, lacks: str) -> None:
    container = Container.of({"name": "c", "securityContext": {"capabilities": wanted}})
    names = capability_names(container, is_sidecar=False)
    assert has in names
    assert lacks not in names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{}", "name"),
        (b"not json", "malformed"),
        (b'{"name":"n","surprise":1}', "surprise"),
        (b'{"name":"n","address":"a","pod_cidr":"c","state_dir":"relative"}', "absolute path"),
    ],
)
def test_a_bad_config_file_says_which_field(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "c.json").write_bytes(text)
    with pytest.raises(NodeConfigError, match=message):
        load_config(tmp_path / "c.json")
