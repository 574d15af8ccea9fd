"""What a faulty upstream must lead to: what the client sees, what the access log and the counters say."""

from dataclasses import dataclass

BROKEN = "broken"
"""The connection ended before the response did: nobody can take it for complete."""

Outcome = int | str
"""A status, or BROKEN."""
Ending = tuple[int, str]
"""(status, response flags) as the access log and the counters have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An upstream's behaviour and what it leads to."""

    name: str
    outcome: Outcome
    """What a client that behaves sees."""
    ending: Ending
    others: tuple[tuple[Outcome, Ending], ...] = ()
    """What may happen as well, by the race of the moment."""
    method: str = "GET"
    spoils_next: bool = False
    """It breaks the framing after its response, so whoever comes next on that connection may be answered 502."""

    @property
    def outcomes(self) -> frozenset[Outcome]:
        return frozenset({self.outcome, *(outcome for outcome, _ in self.others)})

    @property
    def endings(self) -> frozenset[Ending]:
        return frozenset({self.ending, *(ending for _, ending in self.others)})


GOOD: Ending = (200, "-")

FAULTS = {
    fault.name: fault
    for fault in (
        # Behaves.
        Fault(name="good", outcome=200, ending=GOOD),
        Fault(name="chunked", outcome=200, ending=GOOD),
        Fault(name="until-close", outcome=200, ending=GOOD),
        Fault(name="trickle", outcome=200, ending=GOOD),
        Fault(name="hints", outcome=200, ending=GOOD),
        Fault(name="closes-unsaid", outcome=200, ending=GOOD),
        Fault(name="closes-at-reuse", outcome=200, ending=GOOD),
        Fault(name="resets-at-reuse", outcome=200, ending=GOOD),
        Fault(name="head-with-body", outcome=200, ending=GOOD, method="HEAD", others=((502, (502, "UPE")),), spoils_next=True),
        # Sends more than its response.
        Fault(name="extra-bytes", outcome=200, ending=GOOD),
        Fault(name="extra-late", outcome=200, ending=GOOD, others=((502, (502, "UPE")),), spoils_next=True),
        # Does not answer.
        Fault(name="refused", outcome=503, ending=(503, "UF")),
        Fault(name="slams", outcome=503, ending=(503, "UC"), others=((503, (503, "UF")),)),
        Fault(name="resets", outcome=503, ending=(503, "UC")),
        Fault(name="closes", outcome=503, ending=(503, "UC")),
        Fault(name="hangs", outcome=504, ending=(504, "UT")),
        # Begins a head and ...
        Fault(name="half-head", outcome=502, ending=(502, "UPE")),
        Fault(name="slow-head", outcome=504, ending=(504, "UT")),
        Fault(name="garbage", outcome=502, ending=(502, "UPE")),
        Fault(name="bare-lf", outcome=502, ending=(502, "UPE")),
        Fault(name="two-lengths", outcome=502, ending=(502, "UPE")),
        Fault(name="huge-head", outcome=502, ending=(502, "UPE")),
        Fault(name="endless-head", outcome=502, ending=(502, "UPE")),
        Fault(name="unasked-upgrade", outcome=502, ending=(502, "UPE")),
        Fault(name="endless-hints", outcome=502, ending=(502, "UPE")),
        # Begins a response and ...
        Fault(name="short", outcome=BROKEN, ending=(200, "UC")),
        Fault(name="short-reset", outcome=BROKEN, ending=(200, "UC"), others=((503, (503, "UC")),)),
        Fault(name="cut-chunk", outcome=BROKEN, ending=(200, "UC")),
        Fault(name="cut-before-last-chunk", outcome=BROKEN, ending=(200, "UC")),
        Fault(name="bad-chunk", outcome=BROKEN, ending=(200, "UPE")),
        Fault(name="until-reset", outcome=BROKEN, ending=(200, "UC"), others=((503, (503, "UC")),)),
        Fault(name="stalls", outcome=BROKEN, ending=(200, "UT")),
        # Does not wait for the request's body.
        Fault(name="early-close", outcome=413, ending=(413, "-"), others=((503, (503, "UC")),), method="POST"),
        Fault(name="early-reset", outcome=413, ending=(413, "-"), others=((503, (503, "UC")),), method="POST"),
        Fault(name="early-keep", outcome=200, ending=GOOD, method="POST"),
    )
}  # fmt: skip

OWN_PORT = frozenset({"refused", "slams"})
"""Faults of connections, not of requests: they have a port of their own."""
