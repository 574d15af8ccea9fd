"""What policies may refer to: the services and subsets that exist."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The services of the mesh, by fully qualified host, and the subsets that accepted DestinationRules define."""

    ports: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """host -> its service ports."""
    subsets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """host -> names of its subsets."""
    is_open: bool = False
    """Nothing is known about the mesh: references are not checked."""
    domain: str = "cluster.local"

    def host_problem(self, host: str) -> str:
        """What is wrong with a reference to `host` (fully qualified), or ""."""
        if self.is_open or host in self.ports:
            return ""
        return f'host "{host}" is no Service: create it, or correct the name'

    def port_problem(self, host: str, port: int) -> str:
        """What is wrong with a reference to `port` of `host` (0 = none given), or ""."""
        ports = self.ports.get(host)
        if ports is None or not port or port in ports:
            return ""
        return f'Service "{host}" has no port {port}: it has {", ".join(map(str, sorted(ports)))}'

    def subset_problem(self, host: str, subset: str) -> str:
        """What is wrong with a reference to `subset` of `host` ("" = none given), or ""."""
        known = self.subsets.get(host, frozenset())
        if self.is_open or not subset or subset in known:
            return ""
        if not known:
            return f'subset "{subset}" of "{host}" is not defined: add it to a DestinationRule for that host'
        return f'subset "{subset}" of "{host}" is not defined: known are {", ".join(sorted(known))}'


OPEN_REGISTRY = Registry(is_open=True)
