"""Two observations of one case, made comparable, and the differences between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.interop.differential.case import Case, Observed, Seen

SYSTEMATIC = {
    "x-envoy-external-address": "Envoy's edge repeats the client's address in this header; ours says it in x-forwarded-for only.",
    "x-request-id": "Both make a random one; compared as `<new>`.",
    "x-forwarded-for": "At an edge both append the peer; Envoy writes an address of the machine for a peer on loopback, we write "
    "127.0.0.1. Compared as `<peer>`, white space behind commas left out.",
    "server, date, x-envoy-upstream-service-time": "Envoy overwrites `server`; we keep the upstream's. Not compared.",
}
"""Headers that differ everywhere, and what is done about them before comparing."""

_UUID = re.compile(r"(x-request-id: )[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_DATE = re.compile(r"date: [^\\]*GMT")
_PEER = re.compile(r"(x-forwarded-for: (?:.*,)?)\d+\.\d+\.\d+\.\d+$")
_EDGES = frozenset({"edge", "hops", "keep_id"})
_LEFT_OUT = "x-envoy-external-address:"
_LONG = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """What a case came to at Envoy and at our sidecar, as text, where that differs."""

    case: str
    envoy: str
    sidecar: str


def _shortened(text: str, limit: int = _LONG) -> str:
    return text if len(text) <= limit else f"{text[:20]}... ({len(text)} characters)"


def _header(line: str, listener: str) -> str:
    name, _, value = line.partition(":")
    line = f"{name}: {value.strip()}"
    line = _UUID.sub(r"\1<new>", line)
    if name == "x-forwarded-for":
        line = line.replace(", ", ",")
        if listener in _EDGES:
            line = _PEER.sub(r"\1<peer>", line)
    return _shortened(line)


def _request(seen: Seen, listener: str) -> str:
    lines = [line for line in seen.headers if not line.startswith(_LEFT_OUT)]
    headers = sorted(_header(line, listener) for line in _joined(lines))
    body = f" body {_shortened(repr(seen.body))}" if seen.body else ""
    return f"{_shortened(seen.line)} [{'; '.join(headers)}]{body}"


def _joined(lines: list[str]) -> list[str]:
    """Lines of the same name as one: they mean the same (RFC 9110 s5.3)."""
    values: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        values.setdefault(name, []).append(value.strip())
    return [f"{name}:{','.join(those)}" for name, those in values.items()]


def _answers(texts: list[str]) -> list[str]:
    joined: list[str] = []
    for text in texts:
        if text.startswith("tunnel ") and joined and joined[-1].startswith("tunnel "):
            joined[-1] += text.removeprefix("tunnel ")
        else:
            joined.append(text)
    return joined


def parts(case: Case, observed: Observed) -> tuple[str, str, str]:
    """Answers, what became of the connection, and what the upstream got, as texts to compare.

    Requests that were cut off are left out: how far they came is a matter of time, and no server acts on them.
    """
    # Whether a request whose client leaves at once still goes out is a matter of time, too.
    requests = [_request(seen, case.listener) for seen in observed.seen if seen.is_whole and not case.half_closes]
    answers = [_shortened(_DATE.sub("date: <date>", text), 400) for text in _answers(observed.answers)]
    return " | ".join(answers) or "no answer", observed.connection, " | ".join(requests) or "nothing"


def compare(case: Case, envoy: Observed, sidecar: Observed) -> Difference | None:
    """None when they did the same."""
    theirs, ours = parts(case, envoy), parts(case, sidecar)
    if theirs == ours:
        return None
    return Difference(case.name, _difference(theirs, ours), _difference(ours, theirs))


def _difference(mine: tuple[str, str, str], other: tuple[str, str, str]) -> str:
    """Of `mine`, what is not the same in `other`."""
    texts: list[str] = []
    for name, own, foreign in zip(("answer", "connection", "upstream"), mine, other, strict=True):
        if own != foreign:
            texts.append(f"{name}: {own}")
    return "; ".join(texts)


def differences(corpus: Sequence[Case], envoy: list[Observed], sidecar: list[Observed]) -> dict[str, Difference]:
    """By case."""
    found = (compare(*three) for three in zip(corpus, envoy, sidecar, strict=True))
    return {one.case: one for one in found if one is not None}
