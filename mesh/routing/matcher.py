"""The route table, compiled: from a request to the route that takes it.

Compilation happens when a snapshot is swapped. Each condition becomes one closure over bytes, the routes of a host an index, and hosts
become look-ups; so the cost of a match does not grow with the number of hosts or routes.
"""

from bisect import bisect_right
from itertools import accumulate

from mesh.resilience.hedge import HedgePolicy
from mesh.resilience.retry import RetryPolicy
from mesh.routing.conditions import RoutedRequest as RoutedRequest
from mesh.routing.conditions import compile_match
from mesh.routing.errors import RouteTableError
from mesh.routing.index import RouteIndex
from mesh.routing.match import RouteMatch
from mesh.routing.prefixes import PrefixIndex, PrefixNode
from mesh.routing.rewrite import check_rewrites, split_port
from mesh.routing.table import Forward, Route, RouteTable, VirtualHost

_FEW_ROUTES = 4
"""Up to here a virtual host's routes are tried in order."""


class CompiledRoute:
    """A route with its conditions and split made ready. Read-only."""

    __slots__ = ("_cumulative", "_tests", "at", "hedge", "host", "retry", "route", "share")

    def __init__(self, route: Route, host: VirtualHost, at: int, where: str) -> None:
        self.route = route
        self.host = host
        self.at = at
        """Its place in the virtual host."""
        self.share = route.match.share
        self.retry: RetryPolicy | None = None
        self.hedge: HedgePolicy | None = None
        self._tests = compile_match(route.match, where)
        check_rewrites(route.action, where)
        self._cumulative: tuple[int, ...] = ()
        action = route.action
        if isinstance(action, Forward):
            if len(action.clusters) > 1:
                self._cumulative = tuple(accumulate(cluster.weight for cluster in action.clusters))
            self.retry = action.retry if action.retry is not None else host.retry
            self.hedge = action.hedge if action.hedge is not None else host.hedge

    @property
    def match(self) -> RouteMatch:
        return self.route.match

    @property
    def takes_all(self) -> bool:
        """Whether it matches every request that has a path."""
        return not self._tests and self.share >= 1.0

    def matches(self, request: RoutedRequest, draw: float = 0.0) -> bool:
        """Whether all conditions hold; `draw`, uniform in [0, 1), decides for a route that takes only a share."""
        for test in self._tests:
            if not test(request):
                return False
        return draw < self.share

    def pick(self, draw: float) -> int:
        """The index of the split's branch for `draw`, uniform in [0, 1). Only for Forward routes."""
        cumulative = self._cumulative
        return bisect_right(cumulative, draw * cumulative[-1]) if cumulative else 0

    def pick_by(self, number: int) -> int:
        """The branch for a number that stays the same for one user. Source: Envoy: number modulo total weight."""
        cumulative = self._cumulative
        return bisect_right(cumulative, number % cumulative[-1]) if cumulative else 0


class CompiledHost:
    """A virtual host's routes, in order."""

    __slots__ = ("_index", "has_shares", "host", "routes", "takes_all")

    def __init__(self, host: VirtualHost, table: str) -> None:
        self.host = host
        self.routes = tuple(
            CompiledRoute(
                route, host, at, f'route table "{table}", virtual host "{host.name}", route {at} "{route.name}"'
            )
            for at, route in enumerate(host.routes)
        )
        self.has_shares = any(route.share < 1.0 for route in self.routes)
        """Equal requests may take different routes."""
        self.takes_all = len(self.routes) == 1 and self.routes[0].takes_all
        """There is one route, and it takes every request."""
        self._index: RouteIndex[CompiledRoute] | None = None
        if len(self.routes) > _FEW_ROUTES:
            self._index = RouteIndex(self.routes)

    def find(self, request: RoutedRequest, draw: float = 0.0) -> CompiledRoute | None:
        """The first route that matches; None when none does."""
        if self._index is not None:
            return self._index.find(request, draw)
        for route in self.routes:
            if route.matches(request, draw):
                return route
        return None


class CompiledTable:
    """A whole route table. Raises RouteTableError when it cannot be compiled (a bad regular expression or domain).

    `before`: an earlier one, whose virtual hosts are taken over where they are the same objects.
    """

    __slots__ = ("_any", "_exact", "_hosts", "_ignores_port", "_prefixes", "_suffixes", "table")

    def __init__(self, table: RouteTable, before: "CompiledTable | None" = None) -> None:
        self.table = table
        self._ignores_port = table.ignore_port_in_host
        self._exact: dict[bytes, CompiledHost] = {}
        self._any: CompiledHost | None = None
        suffixes: dict[bytes, CompiledHost] = {}
        prefixes: dict[bytes, CompiledHost] = {}
        self._hosts: dict[int, CompiledHost] = {}
        known = before._hosts if before is not None and before.table.name == table.name else {}
        for host in table.virtual_hosts:
            compiled = known.get(id(host))
            if compiled is None or compiled.host is not host:
                compiled = CompiledHost(host, table.name)
            self._hosts[id(host)] = compiled
            for domain in host.domains:
                text = domain.lower().encode()
                if text == b"*":
                    self._any = compiled
                elif text.count(b"*") > 1 or b"*" in text[1:-1] or not text:
                    raise RouteTableError(
                        f'route table "{table.name}", virtual host "{host.name}": domain "{domain}": '
                        "`*` may only be the first or the last character"
                    )
                elif text.startswith(b"*"):
                    suffixes[text[:0:-1]] = compiled
                elif text.endswith(b"*"):
                    prefixes[text[:-1]] = compiled
                else:
                    self._exact[text] = compiled
        self._suffixes = PrefixIndex(suffixes) if suffixes else None
        """By the domain backwards, without the `*`."""
        self._prefixes = PrefixIndex(prefixes) if prefixes else None

    def find_host(self, authority: bytes) -> CompiledHost | None:
        """The virtual host for a lower-case authority: exact, longest suffix, longest prefix, `*`."""
        if self._ignores_port:
            authority = split_port(authority)[0]
        found = self._exact.get(authority)
        if found is not None:
            return found
        if self._suffixes is not None:
            found = _proper(self._suffixes.deepest(authority[::-1]), len(authority))
        if found is None and self._prefixes is not None:
            found = _proper(self._prefixes.deepest(authority), len(authority))
        return found if found is not None else self._any

    def find(self, request: RoutedRequest, draw: float = 0.0) -> CompiledRoute | None:
        """The first route of the request's virtual host that matches; None: 404, flag NR."""
        host = self.find_host(request.authority)
        return host.find(request, draw) if host is not None else None


def _proper(node: PrefixNode[CompiledHost] | None, length: int) -> CompiledHost | None:
    """A wildcard stands for at least one character."""
    if node is not None and len(node.key) == length:
        node = node.parent
    return node.value if node is not None else None
