"""Subsets: which labels name a set of endpoints, and what else is done when they name none. Source: Envoy, "Load balancer subsets"."""

import enum
from collections.abc import Container
from dataclasses import dataclass

from mesh.balance.config import SubsetConfig, SubsetFallback, SubsetSelector
from mesh.balance.endpoint import Labels


class Choice(enum.Enum):
    """Which endpoints a request may go to."""

    SUBSET = "subset"
    ANY = "any"
    DEFAULT = "default"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SubsetChoice:
    """For a request with certain labels."""

    choice: Choice
    labels: Labels = ()
    """With SUBSET: the labels of the endpoints."""


_CHOICES = {
    SubsetFallback.NO_FALLBACK: Choice.NONE,
    SubsetFallback.ANY_ENDPOINT: Choice.ANY,
    SubsetFallback.DEFAULT_SUBSET: Choice.DEFAULT,
}


def subset_labels(selector: SubsetSelector, labels: Labels) -> Labels | None:
    """The subset that an endpoint with these labels belongs to by `selector`; None when it lacks one of the keys."""
    found = tuple(one for one in labels if one[0] in selector.keys)
    return found if len(found) == len(selector.keys) else None


def has_labels(labels: Labels, wanted: Labels) -> bool:
    """Whether all of `wanted` are among `labels`."""
    return set(wanted) <= set(labels)


def choose_subset(config: SubsetConfig, known: Container[Labels], labels: Labels) -> SubsetChoice:
    """Where a request with `labels` (sorted) goes. `known`: the subsets that have an endpoint, healthy or not."""
    if labels and labels in known:
        return SubsetChoice(Choice.SUBSET, labels)
    keys = frozenset(name for name, _ in labels)
    for selector in config.selectors:
        if selector.keys != keys or selector.fallback is None:
            continue
        if selector.fallback is SubsetFallback.KEYS_SUBSET:
            fewer = tuple(one for one in labels if one[0] in selector.fallback_keys)
            return choose_subset(config, known, fewer)
        return SubsetChoice(_CHOICES[selector.fallback])
    return SubsetChoice(_CHOICES[config.fallback])
