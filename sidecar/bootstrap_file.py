"""Reads an Envoy bootstrap file in a process of its own, so that ours never holds what only reading needs.

YAML, the protobuf messages and what parsing leaves behind are 8 MiB and more that a running sidecar has no use for. The fork ends before
anything else starts; it hands back the decoded value or what is wrong.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Final, NoReturn

from mesh.errors import RemoteError
from mesh.xds.errors import DecodeError
from sidecar.config import Bootstrap

MAX_FILE_BYTES: Final = 16 << 20


class ReaderError(RemoteError):
    """The process that reads the file ended without an answer."""


def read_bootstrap(path: Path) -> Bootstrap:
    """Read and decode a bootstrap file. Raises DecodeError; ReaderError when the reader was killed."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _read_and_end(path, sender)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer or status:
        raise ReaderError(f"{path}: the process that reads it ended with {os.waitstatus_to_exitcode(status)}")
    found: Bootstrap | tuple[str, str] = pickle.loads(answer)
    if isinstance(found, tuple):
        raise DecodeError(*found)
    return found


def _read_and_end(path: Path, sender: int) -> NoReturn:
    """In the fork: never returns into the caller's code, whatever happens."""
    code = 1
    try:
        answer: Bootstrap | tuple[str, str]
        try:
            answer = parse_file(path)
        except DecodeError as exc:
            answer = (exc.path, exc.problem)
        with os.fdopen(sender, "wb") as pipe:
            pickle.dump(answer, pipe, pickle.HIGHEST_PROTOCOL)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def parse_file(path: Path) -> Bootstrap:
    """Read and decode in this process. Raises DecodeError."""
    from sidecar.decode.bootstrap import parse_bootstrap

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise DecodeError(str(path), f"can't be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(str(path), f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise DecodeError(str(path), "is not UTF-8 text") from exc
    return parse_bootstrap(text, str(path))
