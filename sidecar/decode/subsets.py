"""Cluster.LbSubsetConfig and the typed Subset policy -> SubsetConfig. Pure."""

from typing import Any, Final

from mesh.balance.config import SubsetConfig, SubsetFallback, SubsetSelector
from mesh.balance.endpoint import Labels
from mesh.xds.errors import DecodeError
from mesh.xds.message import join, only

_FALLBACKS: Final = (SubsetFallback.NO_FALLBACK, SubsetFallback.ANY_ENDPOINT, SubsetFallback.DEFAULT_SUBSET)
"""In the order of LbSubsetFallbackPolicy."""
_SELECTOR_FALLBACKS: Final = (
    None,  # NOT_DEFINED: the cluster's
    SubsetFallback.NO_FALLBACK,
    SubsetFallback.ANY_ENDPOINT,
    SubsetFallback.DEFAULT_SUBSET,
    SubsetFallback.KEYS_SUBSET,
)
"""In the order of LbSubsetSelectorFallbackPolicy."""


def decode_subsets(config: Any, path: str, *others: str) -> SubsetConfig:
    """`others`: fields that the caller has read. Raises DecodeError, or BalanceConfigError."""
    only(
        config,
        path,
        "fallback_policy",
        "default_subset",
        "subset_selectors",
        "locality_weight_aware",
        "scale_locality_weight",
        "panic_mode_any",
        *others,
    )
    return SubsetConfig(
        selectors=tuple(
            _selector(one, f"{join(path, 'subset_selectors')}[{i}]") for i, one in enumerate(config.subset_selectors)
        ),
        fallback=_FALLBACKS[config.fallback_policy],
        default_labels=_labels(config.default_subset, join(path, "default_subset")),
        is_locality_aware=config.locality_weight_aware,
        scales_locality_weight=config.locality_weight_aware and config.scale_locality_weight,
        panic_mode_any=config.panic_mode_any,
    )


def _selector(selector: Any, path: str) -> SubsetSelector:
    only(selector, path, "keys", "fallback_policy", "fallback_keys_subset")
    return SubsetSelector(
        keys=frozenset(selector.keys),
        fallback=_SELECTOR_FALLBACKS[selector.fallback_policy],
        fallback_keys=frozenset(selector.fallback_keys_subset),
    )


def _labels(struct: Any, path: str) -> Labels:
    for name, value in struct.fields.items():
        if value.WhichOneof("kind") != "string_value":
            raise DecodeError(join(path, name), "want a text: endpoints are chosen by labels")
    return tuple(sorted((name, value.string_value) for name, value in struct.fields.items()))
