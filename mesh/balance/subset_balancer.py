"""The balancers of a cluster whose endpoints are divided by labels: one per subset in use, one for the fallback."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from mesh.balance.balancer import BalancedHost, Balancer, BalanceSpec, Surroundings
from mesh.balance.config import SubsetConfig
from mesh.balance.endpoint import Health, Labels, Locality
from mesh.balance.subset import Choice, choose_subset, has_labels, subset_labels

H = TypeVar("H", bound=BalancedHost)


class SubsetBalancer(Generic[H]):
    """Finds the balancer for a request's labels. A subset's balancer is made when it is first asked for."""

    __slots__ = (
        "_around",
        "_balancers",
        "_config",
        "_default_hosts",
        "_fallbacks",
        "_found",
        "_groups",
        "_hosts",
        "_localities_of",
        "_none",
        "_spec",
    )

    def __init__(self, config: SubsetConfig, spec: BalanceSpec, around: Surroundings) -> None:
        """`spec` is for each subset."""
        self._config = config
        self._spec = spec
        self._around = around
        self._hosts: Sequence[H] = ()
        self._groups: dict[Labels, list[H]] = {}
        self._balancers: dict[Labels, Balancer[H]] = {}
        self._fallbacks: dict[Choice, Balancer[H]] = {}
        self._default_hosts: list[H] = []
        self._localities_of: Mapping[tuple[int, Locality], int] | None = None
        self._none: Balancer[H] = Balancer(spec, around)
        self._found: dict[Labels, tuple[Balancer[H], bool]] = {}
        """(balancer, whether it is a subset's own) by a request's labels; valid until the next update."""

    @property
    def active(self) -> int:
        """Subsets that have an endpoint."""
        return len(self._groups)

    def update(self, hosts: Sequence[H], *, is_same_set: bool = False) -> None:
        """From now on these. `is_same_set`: only health or weights have changed, so nobody changes subsets."""
        self._found = {}
        if not is_same_set:
            self._hosts = hosts
            self._divide()
        for labels in [labels for labels in self._balancers if labels not in self._groups]:
            del self._balancers[labels]
        for labels, balancer in self._balancers.items():
            balancer.update(self._groups[labels], self._localities_of)
        for choice, balancer in self._fallbacks.items():
            balancer.update(self._hosts_of(choice), self._localities_of)

    def _divide(self) -> None:
        config = self._config
        self._groups = {}
        for host in self._hosts:
            for selector in config.selectors:
                labels = subset_labels(selector, host.endpoint.labels)
                if labels is not None:
                    group = self._groups.setdefault(labels, [])
                    if not group or group[-1] is not host:  # two selectors may have the same keys
                        group.append(host)
        self._default_hosts = [one for one in self._hosts if has_labels(one.endpoint.labels, config.default_labels)]
        if config.scales_locality_weight:
            counts: dict[tuple[int, Locality], int] = {}
            for host in self._hosts:
                if host.endpoint.health is not Health.DRAINING:
                    key = (host.endpoint.priority, host.endpoint.locality)
                    counts[key] = counts.get(key, 0) + 1
            self._localities_of = counts

    def _hosts_of(self, choice: Choice) -> Sequence[H]:
        return self._default_hosts if choice is Choice.DEFAULT else self._hosts

    def find(self, labels: Labels) -> Balancer[H]:
        """The balancer for a request with `labels` (sorted by name). It may have no endpoint."""
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = self._look_up(labels)
        balancer, is_own = found
        if is_own:
            self._around.counts.subsets_selected += 1
        elif balancer.available:
            self._around.counts.subsets_fallback += 1
        return balancer

    def fallback(self) -> Balancer[H]:
        """For requests without labels; nothing is counted."""
        return self._look_up(())[0]

    def _look_up(self, labels: Labels) -> tuple[Balancer[H], bool]:
        chosen = choose_subset(self._config, self._groups, labels)
        match chosen.choice:
            case Choice.SUBSET:
                balancer = self._balancers.get(chosen.labels)
                if balancer is None:
                    balancer = self._balancers[chosen.labels] = Balancer(self._spec, self._around)
                    balancer.update(self._groups[chosen.labels], self._localities_of)
                return balancer, True
            case Choice.NONE:
                return self._none, False
            case _:
                balancer = self._fallback(chosen.choice)
                if not balancer.available and self._config.panic_mode_any:
                    balancer = self._fallback(Choice.ANY)
                return balancer, False

    def _fallback(self, choice: Choice) -> Balancer[H]:
        balancer = self._fallbacks.get(choice)
        if balancer is None:
            balancer = self._fallbacks[choice] = Balancer(self._spec, self._around)
            balancer.update(self._hosts_of(choice), self._localities_of)
        return balancer

    def advance(self) -> None:
        """As `Balancer.advance`, for every subset."""
        for balancer in (*self._balancers.values(), *self._fallbacks.values()):
            balancer.advance()
