"""envoy.config.route.v3.RetryPolicy -> RetryPolicy. Pure."""

import re
from collections.abc import Callable
from typing import Any, Final

from envoy.extensions.retry.host.omit_host_metadata.v3 import omit_host_metadata_config_pb2

from mesh.backoff import Backoff
from mesh.errors import MeshError
from mesh.resilience.header_condition import HeaderCondition
from mesh.resilience.retry import DEFAULT_BACKOFF, Replay, RetryOn, RetryPolicy, parse_retry_on
from mesh.resilience.retry_after import RateLimitedBackoff, ResetFormat, ResetHeader
from mesh.routing.table import HeaderMatch, MatchKind, StringMatch
from mesh.xds.decode_matches import decode_header_match
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, unpack, wrapped

_SUBSET_KEY: Final = "envoy.lb"
_OMIT_METADATA: Final = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
BUFFER_FIELDS: Final = ("per_request_buffer_limit_bytes", "request_body_buffer_limit")
"""Of a route or a virtual host; the second is the newer name."""


def buffer_limit(message: Any) -> int | None:
    """How much of a request's body is kept for another try; None when the message does not say."""
    for name in reversed(BUFFER_FIELDS):
        if message.HasField(name):
            return int(getattr(message, name).value)
    return None


def decode_retry_policy(policy: Any, path: str, *, repeats_any: bool = False) -> RetryPolicy:
    """A retry policy. `repeats_any`: the route's owner said that every method may be sent twice. Raises DecodeError.

    `host_selection_retry_max_attempts` is accepted and not needed: hosts to avoid are left out when picking, not drawn again.
    """
    if policy.HasField("retry_priority"):
        problem = "is not supported: a retry stays in the priority that is in use, on another host; remove it"
        raise DecodeError(join(path, "retry_priority"), problem)
    only(
        policy,
        path,
        "retry_on",
        "num_retries",
        "per_try_timeout",
        "per_try_idle_timeout",
        "retry_host_predicate",
        "host_selection_retry_max_attempts",
        "retriable_status_codes",
        "retriable_headers",
        "retriable_request_headers",
        "retry_back_off",
        "rate_limited_retry_back_off",
    )
    try:
        conditions, statuses = parse_retry_on(policy.retry_on)
        if policy.retriable_status_codes and not conditions & RetryOn.RETRIABLE_STATUS_CODES:
            raise DecodeError(join(path, "retriable_status_codes"), "needs `retriable-status-codes` in retry_on")
        if policy.retriable_headers and not conditions & RetryOn.RETRIABLE_HEADERS:
            raise DecodeError(join(path, "retriable_headers"), "needs `retriable-headers` in retry_on")
        return RetryPolicy(
            conditions=conditions,
            retriable_statuses=statuses | frozenset(policy.retriable_status_codes),
            retriable_headers=_conditions(policy, path, "retriable_headers"),
            retriable_request_headers=_conditions(policy, path, "retriable_request_headers"),
            max_retries=wrapped(policy, "num_retries", 1),
            per_try_timeout_s=seconds(policy, "per_try_timeout") or None,
            per_try_idle_timeout_s=seconds(policy, "per_try_idle_timeout") or None,
            backoff=_backoff(policy, path),
            rate_limited=_rate_limited(policy, path),
            # DEVIATION: Envoy goes to another host only when told to; going back to the one that failed helps nobody.
            avoid_previous_hosts=True,
            avoid_labels=_avoided_labels(policy, path),
            replay=Replay.ANY if repeats_any else Replay.SAFE,
        )
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def _conditions(policy: Any, path: str, name: str) -> tuple[HeaderCondition, ...]:
    return tuple(
        _condition(decode_header_match(one, f"{join(path, name)}[{i}]")) for i, one in enumerate(getattr(policy, name))
    )


_PATTERNS: Final[dict[MatchKind, Callable[[str], str]]] = {
    MatchKind.EXACT: re.escape,
    MatchKind.PREFIX: lambda value: f"{re.escape(value)}(?s:.*)",
    MatchKind.SUFFIX: lambda value: f"(?s:.*){re.escape(value)}",
    MatchKind.CONTAINS: lambda value: f"(?s:.*){re.escape(value)}(?s:.*)",
    MatchKind.REGEX: lambda value: value,
}


def _condition(match: HeaderMatch) -> HeaderCondition:
    return HeaderCondition(
        name=match.name,
        pattern=None if match.match is None else _pattern(match.match),
        invert=match.invert,
        missing_as_empty=match.missing_as_empty,
    )


def _pattern(match: StringMatch) -> str:
    pattern = _PATTERNS[match.kind](match.value)
    return f"(?i:{pattern})" if match.ignore_case else pattern


def _avoided_labels(policy: Any, path: str) -> tuple[tuple[str, str], ...]:
    """From the host predicates. `previous_hosts` is what we do anyway."""
    labels: dict[str, str] = {}
    for i, predicate in enumerate(policy.retry_host_predicate):
        where = f"{join(path, 'retry_host_predicate')}[{i}]"
        if predicate.name.endswith("previous_hosts"):
            continue
        if not predicate.name.endswith("omit_host_metadata"):
            known = "envoy.retry_host_predicates.previous_hosts, envoy.retry_host_predicates.omit_host_metadata"
            raise DecodeError(where, f'"{predicate.name}" is not supported; known are {known}')
        kinds = {_OMIT_METADATA: omit_host_metadata_config_pb2.OmitHostMetadataConfig}
        _, config = unpack(predicate.typed_config, where, kinds)
        for key, value in config.metadata_match.filter_metadata[_SUBSET_KEY].fields.items():
            if value.WhichOneof("kind") != "string_value":
                raise DecodeError(where, f'metadata_match "{_SUBSET_KEY}" key "{key}": only texts are supported')
            labels[key] = value.string_value
    return tuple(sorted(labels.items()))


def _backoff(policy: Any, path: str) -> Backoff:
    if not policy.HasField("retry_back_off"):
        return DEFAULT_BACKOFF
    path = join(path, "retry_back_off")
    only(policy.retry_back_off, path, "base_interval", "max_interval")
    base = seconds(policy.retry_back_off, "base_interval")
    if not base:
        raise DecodeError(join(path, "base_interval"), "want more than 0 s")
    cap = seconds(policy.retry_back_off, "max_interval") or base * 10
    if cap < base:
        raise DecodeError(join(path, "max_interval"), f"is {cap} s, less than base_interval ({base} s)")
    return Backoff(base_s=base, cap_s=cap, factor=2.0, jitter=1.0)


def _rate_limited(policy: Any, path: str) -> RateLimitedBackoff | None:
    if not policy.HasField("rate_limited_retry_back_off"):
        return None
    backoff, path = policy.rate_limited_retry_back_off, join(path, "rate_limited_retry_back_off")
    only(backoff, path, "reset_headers", "max_interval")
    headers = []
    for i, header in enumerate(backoff.reset_headers):
        only(header, f"{join(path, 'reset_headers')}[{i}]", "name", "format")
        kind = ResetFormat.UNIX_TIMESTAMP if header.format else ResetFormat.SECONDS
        headers.append(ResetHeader(name=str(header.name).lower(), format=kind))
    limit = seconds(backoff, "max_interval")
    return RateLimitedBackoff(headers=tuple(headers), max_interval_s=300.0 if limit is None else limit)
