"""Nodes that fall silent: marked, tainted, their pods out of the endpoints, replaced, and at last removed."""

import asyncio
import logging
from dataclasses import dataclass

from controlplane.controllers.caches import BY_NODE, Caches
from controlplane.controllers.config import ControllersConfig
from controlplane.controllers.node_health import (
    Health,
    evict_after_s,
    health_of,
    not_ready_conditions,
    unknown_conditions,
    wanted_taints,
)
from controlplane.controllers.pods import parse_time
from mesh.api.core import Node, Taint
from mesh.api.pod import Pod
from mesh.api.resources import NODES, PODS
from mesh.client.errors import ApiError, ConflictError, NotFoundError
from mesh.client.events import EventRecorder
from mesh.client.rest import ApiClient
from mesh.clock import Clock, SystemClock

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Heartbeat:
    """What a node last said, and when we saw that it had changed."""

    renewed: str
    seen_at: float


class NodeLifecycle:
    """Looks at every node's heartbeat once per `node_check_interval_s`.

    Time is measured from when a new heartbeat is seen, by the own monotonic clock: clocks of nodes don't matter, and after a
    restart of the control plane every node has its whole grace period again.
    """

    def __init__(
        self,
        client: ApiClient,
        caches: Caches,
        recorder: EventRecorder,
        config: ControllersConfig,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._caches = caches
        self._recorder = recorder
        self._config = config
        self._clock: Clock = clock or SystemClock()
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._tainted_since: dict[str, float] = {}
        self._vanished: dict[str, float] = {}
        self._checked_at = self._clock.now()

    async def run(self) -> None:
        """Watch until cancelled."""
        caches = self._caches
        for informer in (caches.nodes, caches.leases, caches.pods):
            await informer.wait_synced()
        while True:
            await self.check()
            await asyncio.sleep(self._config.node_check_interval_s)

    async def check(self) -> None:
        """Look at every node and every pod's node once, and act."""
        self._forgive_own_stall()
        nodes = self._caches.nodes.all()
        healths = {node.metadata.name: self._health(node) for node in nodes}
        self._forget_removed(set(healths))
        all_silent = bool(nodes) and all(health is Health.UNREACHABLE for health in healths.values())
        for node in nodes:
            try:
                await self._mark(node, healths[node.metadata.name])
                await self._evict(node, healths[node.metadata.name], all_silent=all_silent)
            except ApiError as exc:
                logger.warning("node check failed", extra={"node": node.metadata.name, "error": str(exc)})
        try:
            await self._collect_orphans(set(healths))
        except ApiError as exc:
            logger.warning("pod garbage collection failed", extra={"error": str(exc)})

    def _forgive_own_stall(self) -> None:
        """When we ourselves did not run for a while, heartbeats may lie unread: that time counts against no node."""
        now = self._clock.now()
        late_s = now - self._checked_at - 2 * self._config.node_check_interval_s
        self._checked_at = now
        if late_s > 0:
            for heartbeat in self._heartbeats.values():
                heartbeat.seen_at += late_s

    def _health(self, node: Node) -> Health:
        """Only the Lease and the node's own Ready heartbeat count as signs of life."""
        name = node.metadata.name
        lease = self._caches.leases.get("kube-node-lease", name)
        status_at = next((c.last_heartbeat_time for c in node.status.conditions if c.type == "Ready"), "")
        renewed = f"{lease.spec.renew_time if lease is not None else ''}/{status_at}"
        now = self._clock.now()
        heartbeat = self._heartbeats.get(name)
        if heartbeat is None or heartbeat.renewed != renewed:
            heartbeat = self._heartbeats[name] = _Heartbeat(renewed, now)
        return health_of(node, now - heartbeat.seen_at, self._config.node_grace_s)

    def _forget_removed(self, present: set[str]) -> None:
        for memory in (self._heartbeats, self._tainted_since):
            for name in [name for name in memory if name not in present]:
                del memory[name]

    async def _mark(self, node: Node, health: Health) -> None:
        name = node.metadata.name
        if health is Health.UNREACHABLE:
            conditions = unknown_conditions(node, self._clock.wall())
            if conditions is not None:
                logger.warning("node is silent", extra={"node": name, "grace_s": self._config.node_grace_s})
                await self._client.patch(NODES, name, {"status": {"conditions": conditions}}, subresource="status")
                self._recorder.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        taints = wanted_taints(node, health, self._clock.wall())
        if taints is not None:
            patch = {"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}}
            try:
                await self._client.patch(NODES, name, patch)
            except ConflictError:
                return  # the node wrote meanwhile: the next look decides anew
        if health is not Health.READY:
            await self._take_out_of_endpoints(name)

    async def _take_out_of_endpoints(self, node_name: str) -> None:
        for pod in self._caches.pods.by_index(BY_NODE, node_name):
            conditions = not_ready_conditions(pod, self._clock.wall())
            if conditions is None:
                continue
            patch = {
                "metadata": {"resourceVersion": pod.metadata.resource_version},
                "status": {"conditions": conditions},
            }
            try:
                await self._client.patch(PODS, pod.metadata.name, patch, pod.metadata.namespace, subresource="status")
            except (ConflictError, NotFoundError):
                continue

    async def _evict(self, node: Node, health: Health, *, all_silent: bool) -> None:
        """Delete pods whose time under NoExecute taints is over. When every node is silent the fault is ours, not theirs."""
        name = node.metadata.name
        if not any(taint.effect == "NoExecute" for taint in node.spec.taints):
            self._tainted_since.pop(name, None)
            return
        since = self._tainted_since.setdefault(name, self._clock.now())
        if all_silent:
            return
        tainted_s = self._clock.now() - since
        for pod in self._caches.pods.by_index(BY_NODE, name):
            if pod.metadata.is_terminating:
                if health is Health.UNREACHABLE:
                    await self._force_delete(pod)
            elif not pod.is_finished:
                await self._evict_pod(pod, node.spec.taints, tainted_s)

    async def _evict_pod(self, pod: Pod, taints: tuple[Taint, ...], tainted_s: float) -> None:
        limit_s = evict_after_s(pod, taints, self._config.eviction_after_s)
        if limit_s is None or tainted_s < limit_s:
            return
        self._recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {pod.key}")
        await self._delete(pod, grace_period_s=None)

    async def _force_delete(self, pod: Pod) -> None:
        """Nobody on a silent node confirms the end of a pod."""
        overdue_s = self._clock.wall() - parse_time(pod.metadata.deletion_timestamp)
        if overdue_s >= self._config.force_delete_after_s:
            logger.info("removing a terminating pod of a silent node", extra={"pod": pod.key})
            await self._delete(pod, grace_period_s=0)

    async def _collect_orphans(self, present: set[str]) -> None:
        """Pods bound to nodes that no longer exist."""
        bound = {pod.spec.node_name for pod in self._caches.pods.all()} - {""}
        gone = bound - present
        for name in [name for name in self._vanished if name not in gone]:
            del self._vanished[name]
        for name in gone:
            since = self._vanished.setdefault(name, self._clock.now())
            if self._clock.now() - since < self._config.node_quarantine_s or await self._node_exists(name):
                continue
            for pod in self._caches.pods.by_index(BY_NODE, name):
                logger.info("removing a pod of a node that is gone", extra={"pod": pod.key, "node": name})
                await self._delete(pod, grace_period_s=0)

    async def _node_exists(self, name: str) -> bool:
        """Ask the server itself: the cache may be behind."""
        try:
            await self._client.get(NODES, name)
        except NotFoundError:
            return False
        return True

    async def _delete(self, pod: Pod, *, grace_period_s: int | None) -> None:
        meta = pod.metadata
        try:
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_s=grace_period_s)
        except (NotFoundError, ConflictError):
            return
