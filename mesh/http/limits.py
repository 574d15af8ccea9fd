"""How much of a message's head is read before it is refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """Bounds of a message's head. Beyond them: 414 for the line, 431 for the block or the count."""

    max_line_bytes: int = 8192
    """Request or status line, without CRLF."""
    max_head_bytes: int = 61440
    """First line and header block together. Source: Envoy max_request_headers_kb, 60."""
    max_header_count: int = 100
    """Header lines. Source: Envoy max_headers_count."""


DEFAULT_LIMITS = HeadLimits()

MAX_CHUNK_LINE_BYTES = 256
"""A chunk-size line with its extensions, without CRLF."""
MAX_TRAILER_BYTES = 8192
"""All trailer lines together."""
