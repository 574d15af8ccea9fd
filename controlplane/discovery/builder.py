"""From the world to the tables of each scope; what has not changed is not built again.

Every part is kept with the inputs it was built from. When endpoints come and go, only the assignments of the services
concerned are built; otherwise the parts are gone through, and those whose inputs differ are built anew. Tables whose
content is the same stay the same object, so that streams see at a glance that there is nothing to send.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from controlplane.discovery import build_clusters, build_endpoints, build_listeners, build_routes
from controlplane.discovery.build_listeners import InboundPort
from controlplane.discovery.build_routes import BuiltHost, Client, HostRequest
from controlplane.discovery.config import MeshSettings
from controlplane.discovery.facts import Labels, ObjectKey, PodFacts, Protocol, ServiceFacts
from controlplane.discovery.policy_book import PoliciesInForce, PolicyBook
from controlplane.discovery.resources import CDS, EDS, LDS, RDS, Resource, Table, same_or_new
from controlplane.discovery.snapshot import Scope, Snapshot, Tables, check_references
from controlplane.discovery.world import Dirty, World
from policies.values import CompiledDestinationRule, CompiledVirtualService, Forward

T = TypeVar("T")
_HTTP_PORT_FOR_HOSTS = 80
"""Hosts that are no Service are routed on this port. Source: Istio."""


class _Memo:
    """Values with the inputs they were made from. Entries not asked for in a round are dropped by `sweep`."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[object, Any]] = {}
        self._used: set[Hashable] = set()
        self.builds = 0

    def get(self, key: Hashable, inputs: object, build: Callable[[], T]) -> T:
        self._used.add(key)
        entry = self._entries.get(key)
        if entry is not None and entry[0] == inputs:
            value: T = entry[1]
            return value
        value = build()
        self.builds += 1
        self._entries[key] = (inputs, value)
        return value

    def sweep(self) -> None:
        for key in self._entries.keys() - self._used:
            del self._entries[key]
        self._used.clear()


@dataclass(slots=True)
class _Assignments:
    """The endpoint tables of one service under one DestinationRule."""

    rule: CompiledDestinationRule | None
    table: Mapping[str, Resource]


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a namespace's proxies see of the policies; the same object while it is the same."""

    rules: Mapping[str, CompiledDestinationRule] = field(default_factory=dict)
    routes: Mapping[str, CompiledVirtualService] = field(default_factory=dict)


class Builder:
    """Builds snapshots. Not thread-safe; never awaits."""

    def __init__(self, world: World, settings: MeshSettings) -> None:
        self._world = world
        self._settings = settings
        self._book = PolicyBook()
        self._memo = _Memo()
        self._fixed = build_clusters.fixed_clusters(settings)
        self._assignments: dict[tuple[ObjectKey, str], _Assignments] = {}
        self._pods: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._scopes: dict[Scope, Tables] = {}
        self._shared_routes: dict[tuple[str, Labels, bool], Table] = {}
        """Route tables of the round under way."""
        self._serial = 0
        self._kept_inbound: dict[ObjectKey, dict[int, Protocol]] = {}
        self.policies = PoliciesInForce()

    @property
    def builds(self) -> int:
        """How many parts were built so far; for metrics and tests."""
        return self._memo.builds

    def settle_policies(self) -> None:
        """Compile the policies as they are now. Needed before `scope_of` and `build` when something structural changed."""
        world = self._world
        self.policies = self._book.settle(
            world.virtual_services, world.destination_rules, tuple(world.services.values()), world.domain
        )

    def scope_of(self, namespace: str, labels: Mapping[str, str], pod: PodFacts | None, *, intercepts: bool) -> Scope:
        """The scope of a proxy with these labels."""
        return Scope(
            namespace=namespace,
            labels=self._asked_labels(labels),
            intercepts=intercepts,
            inbound=self._inbound_ports(namespace, labels, pod) if intercepts else (),
        )

    def _asked_labels(self, labels: Mapping[str, str]) -> Labels:
        asked = {
            key
            for service in self.policies.virtual_services
            for route in service.routes
            for match in route.matches
            for key, _ in match.source_labels
        }
        return tuple(sorted((key, value) for key, value in labels.items() if key in asked))

    def _inbound_ports(
        self, namespace: str, labels: Mapping[str, str], pod: PodFacts | None
    ) -> tuple[InboundPort, ...]:
        """The container ports that Services of the pod's namespace target. Of two opinions on one port, HTTP wins.

        A port stays for as long as the pod does, also when its Service has turned to other pods: until every client has let go
        of this pod, their requests still come (measured: 9 of 382 got 503 in a blue/green switch).
        """
        found = self._kept_inbound.setdefault(pod.key, {}) if pod is not None else {}
        named = dict(pod.container_ports) if pod is not None else {}
        own = dict(labels)
        for service in self._world.services.values():
            if service.namespace != namespace or not service.selects(own):
                continue
            for port in service.ports:
                number = port.target if isinstance(port.target, int) else named.get(port.target, 0)
                if number and found.get(number) is not Protocol.HTTP:
                    found[number] = port.protocol
        return tuple(sorted(found.items()))

    def build(self, dirty: Dirty, scopes: Iterable[Scope]) -> Snapshot:
        """The snapshot of these scopes. Raises SnapshotError (a bug); the state is then as before."""
        wanted = set(scopes)
        views: dict[str, _View] = {}
        for namespace in {scope.namespace for scope in wanted}:
            views[namespace] = self._view(namespace)
        self._refresh_endpoints(dirty, views)
        tables: dict[Scope, Tables] = {}
        self._shared_routes.clear()
        for scope in wanted:
            built = self._scope_tables(scope, views[scope.namespace], dirty)
            if built is not self._scopes.get(scope):
                check_references(built)
            tables[scope] = built
        if dirty.is_structural:
            self._memo.sweep()
            self._kept_inbound = {key: ports for key, ports in self._kept_inbound.items() if key in self._world.pods}
        self._scopes = tables
        self._serial += 1
        pods = frozenset().union(*self._pods.values()) if self._pods else frozenset()
        return Snapshot(serial=self._serial, scopes=tables, pods=pods)

    def _view(self, namespace: str) -> _View:
        rules = {
            service.host: rule
            for service in self._world.services.values()
            if (rule := self.policies.rule_for(service.host, namespace)) is not None
        }
        return _View(rules=rules, routes=self.policies.routes_by_host(namespace))

    def _refresh_endpoints(self, dirty: Dirty, views: Mapping[str, _View]) -> None:
        services = self._world.services
        for key in dirty.endpoints_of:
            self._pods.pop(key, None)
            for variant in [k for k in self._assignments if k[0] == key]:
                del self._assignments[variant]
        used = {(k, name) for k in services for name in self._variants(k, views)}
        for unused in self._assignments.keys() - used:
            del self._assignments[unused]
        for key in services:
            if key not in self._pods:
                self._pods[key] = build_endpoints.pods_of(self._world.endpoints(key))
        for gone in self._pods.keys() - services.keys():
            del self._pods[gone]

    def _variants(self, key: ObjectKey, views: Mapping[str, _View]) -> set[str]:
        host = self._world.services[key].host
        return {rule.key if (rule := view.rules.get(host)) is not None else "" for view in views.values()}

    def _assignment(self, service: ServiceFacts, rule: CompiledDestinationRule | None) -> Mapping[str, Resource]:
        key = (service.namespace, service.name), rule.key if rule is not None else ""
        known = self._assignments.get(key)
        if known is None or known.rule != rule:
            endpoints = self._world.endpoints((service.namespace, service.name))
            known = _Assignments(rule, build_endpoints.service_endpoints(service, rule, endpoints))
            self._assignments[key] = known
            self._memo.builds += 1
        return known.table

    def _endpoints_table(self, view: _View, old: Table | None) -> Table:
        table: dict[str, Resource] = {}
        for service in self._world.services.values():
            table.update(self._assignment(service, view.rules.get(service.host)))
        return same_or_new(old, table)

    def _scope_tables(self, scope: Scope, view: _View, dirty: Dirty) -> Tables:
        old = self._scopes.get(scope)
        if old is None or dirty.is_structural:
            return self._tables(scope, view, old)
        built = self._with_endpoints(old, view, dirty) if dirty.endpoints_of else old
        if dirty.has_new_routes:
            routes = self._routes_table(scope, view, old[RDS])
            built = built if routes is old[RDS] else {**built, RDS: routes}
        return built

    def _routes_table(self, scope: Scope, view: _View, old: Table | None) -> Table:
        """Scopes that differ only in their own ports share it."""
        key = (scope.namespace, scope.labels, scope.intercepts)
        if key not in self._shared_routes:
            self._shared_routes[key] = same_or_new(old, self._routes(scope, view))
        return self._shared_routes[key]

    def _with_endpoints(self, old: Tables, view: _View, dirty: Dirty) -> Tables:
        """Only the assignments of the services whose endpoints changed."""
        changed: dict[str, Resource] = {}
        for key in dirty.endpoints_of:
            if (service := self._world.services.get(key)) is not None:
                changed.update(self._assignment(service, view.rules.get(service.host)))
        table = old[EDS]
        if all(name in table and table[name].version == new.version for name, new in changed.items()):
            return old
        return {**old, EDS: {**table, **changed}}

    def _tables(self, scope: Scope, view: _View, old: Tables | None) -> Tables:
        previous: Tables = old or {}
        return {
            CDS: same_or_new(previous.get(CDS), self._clusters(scope, view)),
            EDS: self._endpoints_table(view, previous.get(EDS)),
            LDS: same_or_new(previous.get(LDS), self._listeners(scope)),
            RDS: self._routes_table(scope, view, previous.get(RDS)),
        }

    def _clusters(self, scope: Scope, view: _View) -> dict[str, Resource]:
        table = dict(self._fixed)
        for service in self._world.services.values():
            rule = view.rules.get(service.host)
            table.update(
                self._memo.get(
                    ("clusters", service.host, rule.key if rule else ""),
                    (service, rule),
                    partial(build_clusters.service_clusters, service, rule),
                )
            )
        for port, _ in scope.inbound:
            cluster = self._memo.get(("inbound", port), (), partial(build_clusters.inbound_cluster, port))
            table[cluster.name] = cluster
        return table

    def _listeners(self, scope: Scope) -> dict[str, Resource]:
        settings = self._settings
        if not scope.intercepts:
            listener = self._memo.get("proxy listener", (), lambda: build_listeners.proxy_listener(settings))
            return {listener.name: listener}
        built = [
            self._memo.get("virtual outbound", (), build_listeners.virtual_outbound),
            self._memo.get(
                ("virtual inbound", scope.inbound),
                (),
                lambda: build_listeners.virtual_inbound(scope.inbound, settings),
            ),
            *self._service_listeners(),
        ]
        return {listener.name: listener for listener in built}

    def _service_listeners(self) -> Iterable[Resource]:
        settings = self._settings
        http_ports: set[int] = set()
        for service in self._world.services.values():
            for port in service.ports:
                if port.protocol is not Protocol.TCP:
                    http_ports.add(port.number)
                listener = self._memo.get(
                    ("listener", service.host, port.number),
                    (service, port),
                    partial(build_listeners.service_listener, service, port, settings),
                )
                if listener is not None:
                    yield listener
        for number in sorted(http_ports):
            yield self._memo.get(
                ("http listener", number),
                (),
                partial(build_listeners.http_listener, number, settings),
            )

    def _routes(self, scope: Scope, view: _View) -> dict[str, Resource]:
        ports: dict[int, list[ServiceFacts]] = {}
        for service in self._world.services.values():
            for port in service.ports:
                if port.protocol is not Protocol.TCP:
                    ports.setdefault(port.number, []).append(service)
        if not scope.intercepts:
            return self._proxy_routes(scope, view, ports)
        table: dict[str, Resource] = {}
        for number, services in ports.items():
            hosts = [self._host(scope, view, service, number, is_default=True) for service in services]
            if number == _HTTP_PORT_FOR_HOSTS:
                hosts += self._foreign_hosts(scope, view)
            table[str(number)] = self._configuration(scope, str(number), hosts)
        return table

    def _proxy_routes(self, scope: Scope, view: _View, ports: Mapping[int, list[ServiceFacts]]) -> dict[str, Resource]:
        """All services in one configuration: a Host without a port means port 80, or the service's first HTTP port."""
        hosts: list[BuiltHost] = []
        for number, services in sorted(ports.items()):
            for service in services:
                numbers = [p.number for p in service.ports if p.protocol is not Protocol.TCP]
                default = _HTTP_PORT_FOR_HOSTS if _HTTP_PORT_FOR_HOSTS in numbers else numbers[0]
                hosts.append(self._host(scope, view, service, number, is_default=number == default))
        hosts += self._foreign_hosts(scope, view)
        name = build_routes.PROXY_ROUTES
        return {name: self._configuration(scope, name, hosts)}

    def _configuration(self, scope: Scope, name: str, hosts: Iterable[BuiltHost]) -> Resource:
        ordered = tuple(sorted(hosts, key=lambda host: host.domains))
        key = ("routes", name, scope.namespace, scope.labels, scope.intercepts)
        return self._memo.get(
            key,
            ordered,
            lambda: build_routes.route_configuration(name, ordered, passes_unknown=scope.intercepts),
        )

    def _host(self, scope: Scope, view: _View, service: ServiceFacts, port: int, *, is_default: bool) -> BuiltHost:
        domains = build_routes.domains_of(service, port, scope.namespace, self._world.domain, is_default=is_default)
        return self._built_host(scope, view, service.host, port, domains, service)

    def _foreign_hosts(self, scope: Scope, view: _View) -> list[BuiltHost]:
        """Virtual hosts for VirtualServices whose hosts are no Services of the mesh."""
        known = {service.host for service in self._world.services.values()}
        port = _HTTP_PORT_FOR_HOSTS
        names = [host for host in view.routes if host not in known and host != "*"]
        return [self._built_host(scope, view, host, port, (host, f"{host}:{port}"), None) for host in sorted(names)]

    def _built_host(
        self,
        scope: Scope,
        view: _View,
        host: str,
        port: int,
        domains: tuple[str, ...],
        service: ServiceFacts | None,
    ) -> BuiltHost:
        policy = view.routes.get(host)
        request = HostRequest(
            host=host,
            port=port,
            domains=domains,
            service=service,
            policy=policy,
            client=Client(namespace=scope.namespace, labels=scope.labels),
            destinations=self._destinations(view, policy),
        )
        key = ("host", host, port, domains, scope.namespace, scope.labels)
        return self._memo.get(key, request, lambda: build_routes.build_host(request))

    def _destinations(
        self, view: _View, policy: CompiledVirtualService | None
    ) -> tuple[tuple[str, str, ServiceFacts | None, bool], ...]:
        if policy is None:
            return ()
        found: dict[tuple[str, str], tuple[str, str, ServiceFacts | None, bool]] = {}
        for route in policy.routes:
            for target in route.action.destinations if isinstance(route.action, Forward) else ():
                rule = view.rules.get(target.host)
                exists = not target.subset or (rule is not None and target.subset in rule.subsets)
                service = self._service_by_host(target.host)
                found[target.host, target.subset] = (target.host, target.subset, service, exists)
        return tuple(found.values())

    def _service_by_host(self, host: str) -> ServiceFacts | None:
        name, _, rest = host.partition(".")
        namespace = rest.partition(".")[0]
        service = self._world.services.get((namespace, name))
        return service if service is not None and service.host == host else None
