"""cluster.json: what the launcher tells the cluster process."""

from pathlib import Path

import msgspec

from node.cluster.errors import ClusterError

MAX_NODES = 100


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster. Descriptors are inherited from the launcher."""

    home: Path
    """Absolute."""
    nodes: int = 1
    """1 to 100."""
    external_server: str
    """URL of the API as the machine sees it."""
    api_fd: int | None = None
    """A listening socket of the machine for the API server."""
    lifeline_fd: int | None = None
    """A pipe whose other end only the launcher holds: the cluster ends at its end of file."""
    progress_fd: int | None = None
    """A pipe for progress, one JSON object per line."""
    upstream_dns: tuple[str, ...] = ()
    """The machine's resolvers."""
    trace_sampling_percent: float = 1.0
    components: tuple[str, ...] = ("apiserver", "scheduler", "controllers", "discovery", "traces")
    """The parts of the control plane to run."""


def _decode_path(wanted: type, value: object) -> object:
    """msgspec knows no paths by itself."""
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a path as a string, got {value!r}")


def load_config(path: Path) -> ClusterConfig:
    """Read cluster.json. Raises ClusterError with the field at fault."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=ClusterConfig, dec_hook=_decode_path)
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ClusterError(f"{path}: {error}: see node/cluster/config.py for the fields") from error
    if not 1 <= config.nodes <= MAX_NODES:
        raise ClusterError(f"{path}: nodes is {config.nodes}, want 1 to {MAX_NODES}")
    if not config.home.is_absolute():
        raise ClusterError(f"{path}: home {config.home} is not absolute")
    return config
