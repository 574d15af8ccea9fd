"""The HTTP filters of a connection manager, in order, the router last. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final

from envoy.extensions.filters.http.router.v3 import router_pb2

from mesh.errors import MeshError
from mesh.resilience.adaptive import AdaptiveConfig
from mesh.routing.filters import NO_SETTINGS, FilterKind, FilterSettings
from mesh.xds.decode_filters import FAULT, RATE_LIMIT, SESSION, lazily, with_settings
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only, seconds, unpack, wrapped
from sidecar.config import AdaptiveConcurrency

_STATUS_MIN: Final = 400
_ROUTER: Final = "envoy.extensions.filters.http.router.v3.Router"
_CORS: Final = "envoy.extensions.filters.http.cors.v3.Cors"
_ADAPTIVE: Final = "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency"
_KINDS: Final = {
    _CORS: FilterKind.CORS,
    FAULT: FilterKind.FAULT,
    RATE_LIMIT: FilterKind.LOCAL_RATE_LIMIT,
    _ADAPTIVE: FilterKind.ADAPTIVE_CONCURRENCY,
    SESSION: FilterKind.STATEFUL_SESSION,
}
_MODULES: Final = {
    _CORS: "envoy.extensions.filters.http.cors.v3.cors_pb2",
    _ADAPTIVE: "envoy.extensions.filters.http.adaptive_concurrency.v3.adaptive_concurrency_pb2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChainConfig:
    """What stands before the router."""

    kinds: tuple[FilterKind, ...] = ()
    settings: FilterSettings = NO_SETTINGS
    adaptive: AdaptiveConcurrency | None = None


def decode_filter_chain(manager: Any, path: str) -> FilterChainConfig:
    """The `http_filters` of an HttpConnectionManager. Raises DecodeError."""
    where = join(path, "http_filters")
    if not manager.http_filters:
        raise DecodeError(where, "is empty; want envoy.filters.http.router as the last filter")
    chain = FilterChainConfig()
    last = len(manager.http_filters) - 1
    for i, one in enumerate(manager.http_filters):
        here = f"{where}[{i}]"
        only(one, here, "name", "typed_config", "is_optional", "disabled")
        full_name = one.typed_config.type_url.rpartition("/")[2]
        if full_name == _ROUTER:
            _check_router(one, here)
            if i != last:
                raise DecodeError(here, "the router must be the last filter")
        elif i == last and not one.is_optional:
            raise DecodeError(here, f'"{one.name}" is the last filter; want envoy.filters.http.router')
        elif full_name in _KINDS:
            chain = _add(chain, one, full_name, here)
        elif not (one.disabled or one.is_optional):
            known = ", ".join(kind.value for kind in FilterKind)
            problem = f'HTTP filter "{one.name}" is not supported; before the router there may be {known}'
            raise DecodeError(here, problem)
    return chain


def _check_router(one: Any, path: str) -> None:
    where = f"{path}.typed_config"
    _, router = unpack(one.typed_config, where, {_ROUTER: router_pb2.Router})
    only(router, where, "dynamic_stats", "start_child_span")


def _messages() -> dict[str, Callable[[], Any]]:
    def maker(full_name: str) -> Callable[[], Any]:
        return lambda: getattr(import_module(_MODULES[full_name]), full_name.rpartition(".")[2])()

    return {**lazily(FAULT, RATE_LIMIT, SESSION), **{full_name: maker(full_name) for full_name in _MODULES}}


def _add(chain: FilterChainConfig, one: Any, full_name: str, path: str) -> FilterChainConfig:
    kind = _KINDS[full_name]
    if kind in chain.kinds:
        raise DecodeError(path, f"there is another {kind.value} filter already; one of each is supported")
    where = f"{path}.typed_config"
    _, config = unpack(one.typed_config, where, _messages())
    settings = chain.settings
    adaptive = chain.adaptive
    if kind is FilterKind.ADAPTIVE_CONCURRENCY:
        adaptive = _adaptive(config, where)
    elif kind is FilterKind.CORS:
        only(config, where)
    elif kind is not FilterKind.FAULT or config.ListFields():
        settings = with_settings(settings, full_name, config, where)
    if one.disabled:
        settings = replace(settings, disabled=settings.disabled | {kind})
    return FilterChainConfig(kinds=(*chain.kinds, kind), settings=settings, adaptive=adaptive)


def _adaptive(config: Any, path: str) -> AdaptiveConcurrency:
    only(config, path, "gradient_controller_config", "enabled", "concurrency_limit_exceeded_status")
    gradient, where = config.gradient_controller_config, join(path, "gradient_controller_config")
    only(gradient, where, "sample_aggregate_percentile", "concurrency_limit_params", "min_rtt_calc_params")
    limit, limit_path = gradient.concurrency_limit_params, join(where, "concurrency_limit_params")
    only(limit, limit_path, "max_concurrency_limit", "concurrency_update_interval")
    rtt, rtt_path = gradient.min_rtt_calc_params, join(where, "min_rtt_calc_params")
    only(rtt, rtt_path, "interval", "fixed_value", "request_count", "jitter", "min_concurrency", "buffer")
    update_s, fixed_s = seconds(limit, "concurrency_update_interval"), seconds(rtt, "fixed_value")
    if not update_s:
        raise DecodeError(join(limit_path, "concurrency_update_interval"), "want more than 0 s")
    interval_s = seconds(rtt, "interval")
    if not interval_s and not fixed_s:
        raise DecodeError(rtt_path, "want one of interval, fixed_value")
    defaults = AdaptiveConfig()
    status = int(config.concurrency_limit_exceeded_status.code)
    try:
        gradient_config = AdaptiveConfig(
            percentile=_percent(gradient, "sample_aggregate_percentile", defaults.percentile),
            update_interval_s=update_s,
            max_limit=wrapped(limit, "max_concurrency_limit", defaults.max_limit),
            min_rtt_interval_s=interval_s or defaults.min_rtt_interval_s,
            fixed_min_rtt_s=fixed_s,
            min_rtt_requests=wrapped(rtt, "request_count", defaults.min_rtt_requests),
            min_rtt_jitter_percent=_percent(rtt, "jitter", defaults.min_rtt_jitter_percent),
            min_limit=wrapped(rtt, "min_concurrency", defaults.min_limit),
            buffer_percent=_percent(rtt, "buffer", defaults.buffer_percent),
        )
    except MeshError as exc:
        raise DecodeError(path, str(exc)) from exc
    return AdaptiveConcurrency(
        config=gradient_config,
        # Source: Envoy: anything below 400 becomes 503.
        exceeded_status=status if status >= _STATUS_MIN else 503,
        enabled=wrapped(config.enabled, "default_value", True),
    )


def _percent(message: Any, name: str, default: float) -> float:
    return float(getattr(message, name).value) if message.HasField(name) else default
