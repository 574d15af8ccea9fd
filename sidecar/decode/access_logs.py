"""Access log configurations -> AccessLog. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2

from mesh.xds.errors import DecodeError
from mesh.xds.message import only, unpack
from sidecar.config import AccessLog, AccessLogFormat

_FILE: Final = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
_STDOUT: Final = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
_STDERR: Final = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"
_KINDS: Final = {
    _FILE: file_pb2.FileAccessLog,
    _STDOUT: stream_pb2.StdoutAccessLog,
    _STDERR: stream_pb2.StderrAccessLog,
}
_PATHS: Final = {_STDOUT: "/dev/stdout", _STDERR: "/dev/stderr"}


def decode_access_log(logs: Sequence[Any], path: str) -> AccessLog | None:
    """The access log; None when there is none. Raises DecodeError.

    A format of the user's own selects only between text and JSON: the fields are fixed (sidecar/access_log.py).
    """
    if not logs:
        return None
    if len(logs) > 1:
        raise DecodeError(path, f"has {len(logs)} access logs; one is supported")
    path = f"{path}[0]"
    only(logs[0], path, "name", "typed_config")
    full_name, log = unpack(logs[0].typed_config, f"{path}.typed_config", dict(_KINDS))
    only(log, f"{path}.typed_config", "path", "log_format")
    only(log.log_format, f"{path}.typed_config.log_format", "json_format", "omit_empty_values")
    is_json = log.log_format.WhichOneof("format") == "json_format"
    target = _PATHS.get(full_name) or log.path
    if not target:
        raise DecodeError(f"{path}.typed_config.path", "is empty; name a file")
    return AccessLog(path=target, format=AccessLogFormat.JSON if is_json else AccessLogFormat.TEXT)
