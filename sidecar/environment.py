"""Who this sidecar is and where its control plane is, from the environment that injection sets (docs/contracts.md, "Sidecar")."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from mesh.errors import UserError
from mesh.telemetry.istio import Peer

T = TypeVar("T")

_SECRETS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
MAX_WORKERS: Final = 64
_REQUIRED: Final = ("POD_NAME", "POD_NAMESPACE", "POD_IP", "MESH_DISCOVERY_ADDRESS")


class EnvironmentVariableError(UserError):
    """A variable is missing or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The pod this sidecar serves."""

    pod: str
    namespace: str
    address: str
    node: str = ""
    service_account: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    workload: str = ""
    app_containers: str = ""
    """Names, joined with commas."""
    interception: str = "REDIRECT"
    """REDIRECT or NONE."""
    proxy_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        return f"sidecar~{self.address}~{self.pod}.{self.namespace}~{self.namespace}.svc.cluster.local"

    @property
    def cluster(self) -> str:
        return f"{self.labels.get('app') or self.workload or self.pod}.{self.namespace}"

    def metadata(self) -> dict[str, Any]:
        """The node's metadata."""
        return {
            "NAMESPACE": self.namespace,
            "NAME": self.pod,
            "LABELS": dict(self.labels),
            "SERVICE_ACCOUNT": self.service_account,
            "WORKLOAD_NAME": self.workload,
            "NODE_NAME": self.node,
            "APP_CONTAINERS": self.app_containers,
            "INTERCEPTION_MODE": self.interception,
            "PROXY": "meshwork",
            "PROXY_CONFIG": dict(self.proxy_config),
        }

    def peer(self) -> Peer:
        """How this workload stands in metrics."""
        return Peer(
            workload=self.workload or self.pod,
            namespace=self.namespace,
            app=self.labels.get("app", ""),
            version=self.labels.get("version", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The identity and the way to the control plane."""

    identity: Identity
    discovery: tuple[str, int]
    ca_file: Path
    token_file: Path
    concurrency: int = 1
    """Workers, 0 to 64; 0: one per core."""


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Raises EnvironmentVariableError."""
    missing = [name for name in _REQUIRED if not variables.get(name)]
    if missing:
        raise EnvironmentVariableError(
            f"{', '.join(missing)} not set: injection sets them; to run without a control plane use --config FILE"
        )
    identity = Identity(
        pod=variables["POD_NAME"],
        namespace=variables["POD_NAMESPACE"],
        address=variables["POD_IP"],
        node=variables.get("NODE_NAME", ""),
        service_account=variables.get("SERVICE_ACCOUNT") or "default",
        labels=_json(variables, "MESH_LABELS", dict[str, str]),
        workload=variables.get("MESH_WORKLOAD", ""),
        app_containers=variables.get("MESH_APP_CONTAINERS", ""),
        interception=variables.get("MESH_INTERCEPTION_MODE") or "REDIRECT",
        proxy_config=_json(variables, "MESH_PROXY_CONFIG", dict[str, Any]),
    )
    return Environment(
        identity=identity,
        discovery=_address(variables["MESH_DISCOVERY_ADDRESS"]),
        ca_file=Path(variables.get("MESH_CA_FILE") or f"{_SECRETS}/ca.crt"),
        token_file=Path(variables.get("MESH_TOKEN_FILE") or f"{_SECRETS}/token"),
        concurrency=_concurrency(variables.get("MESH_CONCURRENCY") or "1"),
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise EnvironmentVariableError(f"MESH_DISCOVERY_ADDRESS is {text!r}, want ADDRESS:PORT")
    return host.strip("[]"), int(port)


def _concurrency(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_WORKERS:
        raise EnvironmentVariableError(f"MESH_CONCURRENCY is {text!r}, want 0 (one worker per core) to {MAX_WORKERS}")
    return int(text)


def _json(variables: Mapping[str, str], name: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(variables.get(name) or "{}", type=kind)
    except msgspec.MsgspecError as exc:
        raise EnvironmentVariableError(f"{name} is not a JSON object: {exc}") from exc
