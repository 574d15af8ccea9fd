"""Kubeconfig files: what is read, and what is refused with a reason."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.client.config import ClientConfig
from mesh.client.errors import ClientConfigError

pytestmark = pytest.mark.unit


def _kubeconfig(tmp_path: Path, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    path = _kubeconfig(
        tmp_path,
        cluster={"certificate-authority": "pki/ca.crt"},
        user={"client-certificate": "pki/a.crt", "client-key": "/keys/a.key"},
    )
    config = ClientConfig.from_kubeconfig(path)
    assert config.ca_file == str(tmp_path / "pki/ca.crt")
    assert config.cert_file == str(tmp_path / "pki/a.crt")
    assert config.key_file == "/keys/a.key"


def test_data_fields_are_decoded(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"PEM").decode()
    path = _kubeconfig(
        tmp_path,
        cluster={"certificate-authority-data": encoded},
        user={"client-certificate-data": encoded, "client-key-data": encoded},
    )
    config = ClientConfig.from_kubeconfig(path)
    assert (config.ca_data, config.cert_data, config.key_data) == ("PEM", b"PEM", b"PEM")


def test_token_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert ClientConfig.from_kubeconfig(_kubeconfig(tmp_path, user={"tokenFile": "token"})).token == "secret"


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"insecure-skip-tls-verify": True}, {}, "insecure-skip-tls-verify is refused"),
        ({}, {"exec": {"command": "aws"}}, "uses 'exec'"),
        ({"server": "http://10.0.0.1:80"}, {}, "not on loopback"),
        ({"server": "nonsense"}, {}, "not a URL"),
        ({"certificate-authority-data": "%"}, {}, "not base64"),
        ({}, {"tokenFile": "none"}, "can't be read"),
    ],
)
def test_unusable_settings_are_refused(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientConfigError, match=message):
        ClientConfig.from_kubeconfig(_kubeconfig(tmp_path, cluster=cluster, user=user))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not YAML"), ("[]", "not a mapping"), ("{}", "no current-context")]
)
def test_broken_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ClientConfigError, match=message):
        ClientConfig.from_kubeconfig(path)


def test_missing_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientConfigError, match="contexts has no entry named 'other'"):
        ClientConfig.from_kubeconfig(_kubeconfig(tmp_path), context="other")
