"""What is measured: every case of the data plane as a value."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PEERS = ("meshwork", "envoy", "haproxy", "nginx")
SMALL_BYTES = 61
KIB = 1024
MIB = 1024 * KIB


class Heads(enum.Enum):
    """How request heads differ from each other."""

    REPEAT = "repeat"
    """Every request is the same bytes. Flatters every cache."""
    UNIQUE = "unique"
    """Path and request id of a request, and a response header, occur once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the proxies are configured; cases with equal set-ups share their processes."""

    features: bool = True
    """90/10 split, two retries, outlier detection, least request, metrics, 1 % tracing. Without: one route to one cluster."""
    hops: int = 1
    """1, or 2: two proxies of one kind in a row, both on the proxy's core."""
    routes: int = 0
    """Routes spread over the table (exact, prefix, header); 0: one that takes everything."""
    clusters: int = 0
    """Clusters of three endpoints with a route each, in place of all the above; 0: none."""
    regex_routes: int = 0
    """Routes by regular expression that are tried before the one that matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the load generator sends."""

    heads: Heads = Heads.UNIQUE
    download_bytes: int = SMALL_BYTES
    upload_bytes: int = 0
    """0: GET. Otherwise POST with a body of this size, answered with a small body when all of it has arrived."""
    is_churn: bool = False
    """A connection for each request."""

    @property
    def body_bytes(self) -> int:
        return self.upload_bytes or self.download_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One load on one set-up, driven as fast as it will go."""

    name: str
    """`group/variant`."""
    title: str
    setup: Setup = Setup()
    request: Request = Request()
    connections: int = 32
    is_quick: bool = False
    """Part of the default run; the others need --full or --only."""

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


_SIZES = (("61B", SMALL_BYTES), ("1KB", KIB), ("64KB", 64 * KIB), ("10MB", 10 * MIB))
_QUICK_BODIES = ("download/64KB", "upload/64KB")


def _body_cases() -> Iterable[Case]:
    for way in ("download", "upload"):
        for label, size in _SIZES:
            name = f"{way}/{label}"
            is_download = way == "download"
            request = Request(
                heads=Heads.REPEAT,
                download_bytes=size if is_download else SMALL_BYTES,
                upload_bytes=0 if is_download else size,
            )
            yield Case(
                name=name,
                title=f"{label} {way}",
                request=request,
                connections=4 if size >= MIB else 32,
                is_quick=name in _QUICK_BODIES,
            )


CLOSED_LOOP: tuple[Case, ...] = (
    Case(name="heads/repeat", title="heads repeat", request=Request(heads=Heads.REPEAT), is_quick=True),
    Case(name="heads/unique", title="unique heads", is_quick=True),
    *_body_cases(),
    *(
        Case(
            name=f"connections/{count}",
            title=f"{count} connection{'s' if count > 1 else ''}",
            connections=count,
            is_quick=count == 512,
        )
        for count in (1, 8, 32, 128, 512)
    ),
    Case(name="churn/small", title="a connection per request", request=Request(is_churn=True), is_quick=True),
    Case(name="plain/repeat", title="no features, heads repeat", setup=Setup(features=False), request=Request(heads=Heads.REPEAT)),
    Case(name="plain/unique", title="no features, unique heads", setup=Setup(features=False)),
    Case(name="two_hops/repeat", title="heads repeat", setup=Setup(hops=2), request=Request(heads=Heads.REPEAT)),
    Case(name="two_hops/unique", title="unique heads", setup=Setup(hops=2), is_quick=True),
    *(
        Case(name=f"routes/{count}", title=f"{count:,} routes", setup=Setup(routes=count), is_quick=count != 1000)
        for count in (10, 1000, 10_000)
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedCase:
    """Requests at a fixed rate, whatever the answers do."""

    name: str
    title: str
    rate_per_s: int
    connections: int
    """Each sends `rate_per_s / connections` requests per second: a whole number."""
    is_quick: bool = True


PACED: tuple[PacedCase, ...] = (
    PacedCase(name="latency/1000", title="1,000 req/s", rate_per_s=1000, connections=50),
    PacedCase(name="latency/10000", title="10,000 req/s", rate_per_s=10_000, connections=200),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCase:
    """Resident memory after a load that uses every cluster."""

    name: str
    title: str
    clusters: int
    is_quick: bool = True


MEMORY: tuple[MemoryCase, ...] = tuple(
    MemoryCase(name=f"memory/{count}", title=f"{count:,} clusters", clusters=count) for count in (100, 1000)
)
WORKERS = "workers/scaling"
MATCHING = "matching/table"

AnyCase = Case | PacedCase | MemoryCase | str


def name_of(case: AnyCase) -> str:
    return case if isinstance(case, str) else case.name


def all_cases() -> tuple[AnyCase, ...]:
    """Every case, in the order they run: those that share a set-up are neighbours."""
    return (*CLOSED_LOOP, *PACED, *MEMORY, WORKERS, MATCHING)


def select(only: Sequence[str], *, is_full: bool) -> list[AnyCase]:
    """The cases to run: those named (a whole group by its first word), or the quick ones, or all. Raises ValueError for an unknown name."""
    cases = all_cases()
    if not only:
        return [case for case in cases if is_full or isinstance(case, str) or case.is_quick]
    names = [name_of(case) for case in cases]
    for wanted in only:
        if not any(_is_named(name, wanted) for name in names):
            groups = ", ".join(dict.fromkeys(name.partition("/")[0] for name in names))
            raise ValueError(f'no case called "{wanted}": want a group ({groups}) or GROUP/CASE, see --list')
    return [case for case in cases if any(_is_named(name_of(case), wanted) for wanted in only)]


def _is_named(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}/")
