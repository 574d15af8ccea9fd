"""envoy.config.route.v3.RetryPolicy -> RetryPolicy. Pure."""

from typing import Any

from mesh.backoff import Backoff
from mesh.errors import MeshError
from mesh.resilience.retry import DEFAULT_BACKOFF, Replay, RetryOn, RetryPolicy, parse_retry_on
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, wrapped

_PREVIOUS_HOSTS = "previous_hosts"


def decode_retry_policy(policy: Any, path: str, *, repeats_any: bool = False) -> RetryPolicy:
    """A retry policy. `repeats_any`: the route's owner said that every method may be sent twice. Raises DecodeError."""
    only(
        policy,
        path,
        "retry_on",
        "num_retries",
        "per_try_timeout",
        "retry_host_predicate",
        "host_selection_retry_max_attempts",
        "retriable_status_codes",
        "retry_back_off",
    )
    _check_predicates(policy, path)
    try:
        conditions, statuses = parse_retry_on(policy.retry_on)
        if policy.retriable_status_codes and not conditions & RetryOn.RETRIABLE_STATUS_CODES:
            raise DecodeError(join(path, "retriable_status_codes"), "needs `retriable-status-codes` in retry_on")
        return RetryPolicy(
            conditions=conditions,
            retriable_statuses=statuses | frozenset(policy.retriable_status_codes),
            max_retries=wrapped(policy, "num_retries", 1),
            per_try_timeout_s=seconds(policy, "per_try_timeout") or None,
            backoff=_backoff(policy, path),
            # DEVIATION: Envoy goes to another host only when told to; going back to the one that failed helps nobody.
            avoid_previous_hosts=True,
            replay=Replay.ANY if repeats_any else Replay.SAFE,
        )
    except DecodeError:
        raise
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc


def _check_predicates(policy: Any, path: str) -> None:
    for i, predicate in enumerate(policy.retry_host_predicate):
        if not predicate.name.endswith(_PREVIOUS_HOSTS):
            problem = f'"{predicate.name}" is not supported; known is envoy.retry_host_predicates.{_PREVIOUS_HOSTS}'
            raise DecodeError(f"{join(path, 'retry_host_predicate')}[{i}]", problem)


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
