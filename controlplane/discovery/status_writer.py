"""Writes what discovery knows back through the API: policies' status and pods' drain condition."""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from controlplane.discovery.drains import DrainTracker
from controlplane.discovery.facts import DRAINED_CONDITION, ObjectKey
from controlplane.discovery.policy_status import PolicyStatusTracker
from controlplane.discovery.status_text import CurrentStatus, says_the_same
from controlplane.discovery.verdicts import PolicyId
from controlplane.discovery.world import World
from mesh.api.networking import DestinationRule, VirtualService
from mesh.api.resources import DESTINATION_RULES, HTTP_ROUTES, PODS, TRAFFIC_LIMITS, VIRTUAL_SERVICES, Json, Resource
from mesh.api.traffic_limit import TrafficLimit
from mesh.client.errors import ApiError, NotFoundError
from mesh.client.rest import ApiClient, PatchType
from mesh.client.work_queue import QueueClosedError, WorkQueue
from mesh.clock import Clock
from mesh.net.tasks import spawn

logger = logging.getLogger(__name__)

K = TypeVar("K", PolicyId, ObjectKey)
_DRAIN_WORKERS = 8
_STATUS_WORKERS = 4


class StatusWriter:
    """Work queues and their workers. `run` is owned by a TaskGroup."""

    def __init__(self, client: ApiClient, world: World, clock: Clock) -> None:
        self._client = client
        self._world = world
        self._clock = clock
        self._policies: WorkQueue[PolicyId] = WorkQueue()
        self._drains: WorkQueue[ObjectKey] = WorkQueue()
        self._written: dict[PolicyId, Json] = {}

    def policy_changed(self, policy: PolicyId, in_s: float) -> None:
        """Look at this policy's status, now or later."""
        if in_s > 0:
            self._policies.add_after(policy, in_s)
        else:
            self._policies.add(policy)

    def pod_drained(self, pod: ObjectKey) -> None:
        """Tell the pod's node that nobody sends it new requests."""
        self._drains.add(pod)

    async def run(self, policies: PolicyStatusTracker, drains: DrainTracker) -> None:
        """Until cancelled."""

        async def write_status(policy: PolicyId) -> None:
            await self._write_status(policies, policy)

        async def write_drained(pod: ObjectKey) -> None:
            await self._write_drained(drains, pod)

        async with asyncio.TaskGroup() as group:
            for number in range(_STATUS_WORKERS):
                spawn(group, _work(self._policies, write_status), name=f"policy status {number}")
            for number in range(_DRAIN_WORKERS):
                spawn(group, _work(self._drains, write_drained), name=f"drain {number}")

    async def _write_status(self, tracker: PolicyStatusTracker, policy: PolicyId) -> None:
        current = self._current(policy)
        if current is None:
            self._written.pop(policy, None)
            return
        now = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        desired = tracker.desired(policy, current, now)
        if desired is None or (says_the_same(desired, current) and self._written.get(policy, desired) == desired):
            return
        try:
            await self._client.patch(
                policy.resource, policy.name, {"status": desired}, policy.namespace, subresource="status"
            )
        except NotFoundError:
            return
        self._written[policy] = desired

    def _current(self, policy: PolicyId) -> CurrentStatus | None:
        """What is written now; None when the policy is gone."""
        world, key = self._world, (policy.namespace, policy.name)
        if policy.resource == HTTP_ROUTES:
            route = world.http_routes.get(key)
            return route.status.parents if route is not None else None
        objects: Mapping[Resource, Mapping[ObjectKey, VirtualService | DestinationRule | TrafficLimit]] = {
            VIRTUAL_SERVICES: world.virtual_services,
            DESTINATION_RULES: world.destination_rules,
            TRAFFIC_LIMITS: world.traffic_limits,
        }
        found = objects[policy.resource].get(key)
        return found.status.conditions if found is not None else None

    async def _write_drained(self, tracker: DrainTracker, pod: ObjectKey) -> None:
        facts = self._world.pods.get(pod)
        if facts is None or not facts.is_terminating or facts.is_drained or not tracker.is_drained(pod):
            return
        now = datetime.datetime.fromtimestamp(self._clock.wall(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": DRAINED_CONDITION,
            "status": "True",
            "reason": "Acknowledged",
            "message": "no connected proxy sends this pod new requests",
            "lastTransitionTime": now,
        }
        namespace, name = pod
        try:
            await self._client.patch(
                PODS,
                name,
                {"status": {"conditions": [condition]}},
                namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except NotFoundError:
            logger.debug("the pod is gone already", extra={"pod": name, "namespace": namespace})


async def _work(queue: WorkQueue[K], act: Callable[[K], Awaitable[None]]) -> None:
    while True:
        try:
            key = await queue.get()
        except QueueClosedError:
            return
        try:
            await act(key)
        except ApiError as exc:
            logger.warning("status not written; trying again", extra={"about": str(key), "why": str(exc)})
            queue.add_rate_limited(key)
        else:
            queue.forget(key)
        finally:
            queue.done(key)
