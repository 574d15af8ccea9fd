"""The client: sends a case's bytes as they are and writes down what comes back."""

import asyncio
import re

from tests.interop.differential.case import Case, Observed
from tests.interop.differential.upstream import PROBE, Upstream

QUIET_S = 0.25
"""Nothing for this long: the proxy has said what it had to say."""
PIECE_S = 0.05
_BETWEEN_PROXIES = re.compile(rb"(?i)^(?:date|server|x-envoy-upstream-service-time|content-length|transfer-encoding):")


class Answers:
    """Takes responses off a stream, without believing much."""

    def __init__(self, reader: asyncio.StreamReader, *, is_head: bool) -> None:
        self._reader = reader
        self._is_head = is_head
        self._buffer = b""
        self.texts: list[str] = []
        self.finals = 0
        self.is_closed = False
        self.was_probed = False
        self._is_tunnel = False

    async def read(self, wanted: int) -> None:
        """Until there are `wanted` final responses, the connection has ended, or it is quiet."""
        while self.finals < wanted and not self.is_closed:
            if not await self._more(QUIET_S):
                return

    async def read_some(self, seconds: float) -> None:
        await self._more(seconds)

    async def _more(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self.is_closed = True
        self._buffer += data
        while self._take():
            pass
        if self.is_closed and self._buffer:
            self.texts.append(f"cut off: {_short(self._buffer)}")
            self._buffer = b""
        return True

    def _take(self) -> bool:
        if self._is_tunnel:
            if self._buffer:
                self.texts.append(f"tunnel {self._buffer!r}")
                self._buffer = b""
            return False
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ")[1]) if first.startswith(b"HTTP/1.") else -1
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        body: bytes | None
        framing = "none"
        self.was_probed = self.was_probed or fields.get(b"x-up") == b"probe"
        if status == 101 or (status == 200 and b"x-tunnel" in fields):
            self._is_tunnel = True
            body, taken, framing = b"", 0, "tunnel"
        elif status < 200 or status in (204, 304) or (self._is_head and not self.was_probed):
            body, taken = b"", 0
            framing = "length" if b"content-length" in fields else "none"
        elif fields.get(b"transfer-encoding") == b"chunked":
            framing = "chunked"
            body, taken = _unchunk(rest)
        elif b"content-length" in fields:
            framing = "length"
            size = int(fields[b"content-length"])
            body, taken = (rest[:size], size) if len(rest) >= size else (None, 0)
        else:
            framing = "close"
            body, taken = (rest, len(rest)) if self.is_closed else (None, 0)
        if body is None:
            return False
        self._buffer = rest[taken:]
        if fields.get(b"x-up") != b"probe":
            self._note(status, lines, framing, body, is_upstreams=b"x-up" in fields)
        self.finals += status >= 200 or status == 101
        return True

    def _note(self, status: int, lines: list[bytes], framing: str, body: bytes, *, is_upstreams: bool) -> None:
        if not is_upstreams:
            self.texts.append(str(status))
            return
        kept = sorted(line.lower().decode("latin-1") for line in lines if not _BETWEEN_PROXIES.match(line))
        self.texts.append(f"{status} {framing} {body!r} [{'; '.join(kept)}]")


def _short(data: bytes) -> str:
    return repr(data[:12])


def _unchunk(data: bytes) -> tuple[bytes | None, int]:
    """Payload with `|name: value` for trailers, and how many bytes it took."""
    body, at = b"", 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None, 0
        size = int(data[at:end].split(b";")[0] or b"0", 16)
        at = end + 2
        if size == 0:
            break
        if len(data) < at + size + 2:
            return None, 0
        body += data[at : at + size]
        at += size + 2
    while (end := data.find(b"\r\n", at)) != at:
        if end < 0:
            return None, 0
        body += b"|" + data[at:end].lower()
        at = end + 2
    return body, at + 2


async def observe(case: Case, port: int, upstream: Upstream) -> Observed:
    """Send `case` to the proxy at `port`."""
    seen = upstream.begin(case)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = Answers(reader, is_head=case.send[0].startswith(b"HEAD "))
    try:
        for at, piece in enumerate(case.send):
            if at:
                await answers.read_some(PIECE_S)
            writer.write(piece)
        if case.half_closes:
            writer.write_eof()
        await answers.read(case.responses)
        connection = await _connection(case, answers, writer)
    finally:
        writer.close()
    return Observed(answers.texts, connection, seen)


async def _connection(case: Case, answers: Answers, writer: asyncio.StreamWriter) -> str:
    if case.half_closes or not case.probe:
        await answers.read(case.responses + 1)
        if case.half_closes:
            await asyncio.sleep(PIECE_S)  # what was on its way to the upstream still belongs to this case
        return "closed" if answers.is_closed else "kept"
    if not answers.is_closed:
        writer.write(PROBE)
        await answers.read(answers.finals + 1)
    if not answers.was_probed and not answers.is_closed:
        await answers.read(answers.finals + 1)
    # A probe that is answered with a goodbye counts as what it is: the end.
    return "kept" if answers.was_probed else "closed" if answers.is_closed else "silent"
