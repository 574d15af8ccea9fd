"""The spans kept in memory: the newest traces, up to fixed bounds. Pure."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_SPANS_PER_TRACE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One finished span. Ids are lower-case hex; times are nanoseconds since the Unix epoch."""

    trace_id: str
    span_id: str
    parent_span_id: str
    """"" for a root."""
    service: str
    name: str
    kind: str
    """server, client, internal, producer, consumer or unspecified."""
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As the query API shows it."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_span_id": self.parent_span_id,
            "service": self.service,
            "name": self.name,
            "kind": self.kind,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "is_error": self.is_error,
            "attributes": dict(self.attributes),
        }


class SpanBuffer:
    """The newest traces. When full, the trace that has waited longest for a new span goes first.

    At most `max_spans` spans in all and 1,000 per trace; a span id seen twice replaces its first report.
    """

    def __init__(self, max_spans: int = 20_000) -> None:
        self._max_spans = max_spans
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()
        self._count = 0
        self.dropped = 0
        """Spans refused or displaced since the start."""

    def __len__(self) -> int:
        return self._count

    def add(self, span: Span) -> None:
        """Keep `span`, displacing the oldest traces if need be."""
        spans = self._traces.get(span.trace_id)
        if spans is None:
            spans = self._traces[span.trace_id] = {}
        elif span.span_id not in spans and len(spans) >= MAX_SPANS_PER_TRACE:
            self.dropped += 1
            return
        self._count += span.span_id not in spans
        spans[span.span_id] = span
        self._traces.move_to_end(span.trace_id)
        while self._count > self._max_spans and len(self._traces) > 1:
            _, displaced = self._traces.popitem(last=False)
            self._count -= len(displaced)
            self.dropped += len(displaced)

    def trace(self, trace_id: str) -> tuple[Span, ...]:
        """The trace's spans by start time; empty when it is not kept."""
        return tuple(sorted(self._traces.get(trace_id, {}).values(), key=lambda s: (s.start_ns, s.span_id)))

    def newest(self, limit: int, service: str = "") -> Iterator[tuple[Span, ...]]:
        """Up to `limit` traces, the most recently extended first; only those in which `service` takes part when given."""
        found = 0
        for trace_id in reversed(self._traces):
            if found >= limit:
                return
            spans = self.trace(trace_id)
            if not service or any(span.service == service for span in spans):
                found += 1
                yield spans
