"""`python -m tests.interop.differential.render`: writes docs/differences-from-envoy.md from the table."""

from pathlib import Path

from tests.interop.differential.compare import SYSTEMATIC
from tests.interop.differential.corpus import CORPUS
from tests.interop.differential.table import Table, read_table

PAGE = Path(__file__).resolve().parents[3] / "docs" / "differences-from-envoy.md"

_INTRO = """\
# Where our sidecar differs from Envoy in HTTP/1.1

Made by `python -m tests.interop.differential.render`; do not edit. `tests/interop/test_differential.py` sends {cases} requests, byte for
byte, through Envoy 1.40 and through our sidecar, both started from one bootstrap file in front of one upstream, and compares what the
client gets (statuses, framing, headers, body, whether the connection stays) and what the upstream gets (request line, headers, body).
{same} come out the same; the other {different} are below. The test fails for a difference that is not listed, for one that is listed and
gone, and for one that has changed. The requests are in `tests/interop/differential/corpus/`.

`answer` is what the client got, as `STATUS FRAMING BODY [HEADERS]` where it is the upstream's and as the status alone where it is the
proxy's own; `upstream` is what the upstream got. Only what differs is shown.

## Left out of every comparison
"""


def render(table: Table) -> str:
    """The whole page."""
    different = len(table.known)
    text = _INTRO.format(cases=len(CORPUS), same=len(CORPUS) - different, different=different)
    text += "\n".join(f"- `{name}`: {why}" for name, why in SYSTEMATIC.items()) + "\n"
    for key, why in table.reasons.items():
        cases = [case for case, reason in table.reason_of.items() if reason == key]
        text += f"\n## {key.replace('-', ' ').capitalize()}\n{why}\n\n| case | Envoy | our sidecar |\n|---|---|---|\n"
        for case in cases:
            known = table.known[case]
            text += f"| {_cell(case)} | {_code(known.envoy)} | {_code(known.sidecar)} |\n"
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`` {text.replace('|', chr(92) + '|').replace('``', '` `')} ``"


if __name__ == "__main__":
    PAGE.write_text(render(read_table()))
