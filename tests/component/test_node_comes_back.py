"""A node that was given up and comes back: it says again that it and its pods are ready."""

import asyncio
import signal
from pathlib import Path

import pytest

from mesh.api.core import Node
from mesh.api.resources import NODES, PODS
from mesh.client.rest import PatchType
from tests.component.node_harness import IS_ROOT, NodeUnderTest, pod_object, shell, with_node

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(not IS_ROOT, reason="makes network namespaces: needs root (or uid 0 of a user namespace)"),
]


def test_stopped_agent_takes_back_what_was_said_of_it_meanwhile(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.stop_agent()
        async with node.agent_process() as process:
            await node.create(pod_object("web", shell("app", "exec sleep 1000")))
            pod = await node.wait_for("web", lambda p: p.is_ready)
            process.send_signal(signal.SIGSTOP)
            # What the node lifecycle controller writes about a silent node.
            unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
            not_ready = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
            for resource, name, namespace, condition in (
                (NODES, node.config.name, None, unknown),
                (PODS, "web", "default", not_ready),
            ):
                await node.client.patch(
                    resource,
                    name,
                    {"status": {"conditions": [condition]}},
                    namespace,
                    patch_type=PatchType.STRATEGIC,
                    subresource="status",
                )
            # Longer than three heartbeats: the agent can't know of the pause but by its clock.
            await asyncio.sleep(4 * node.config.lease_renew_s)
            process.send_signal(signal.SIGCONT)
            again = await node.wait_for("web", lambda p: p.is_ready)
            assert again.metadata.uid == pod.metadata.uid
            ready = next(c for c in again.status.conditions if c.type == "Ready")
            assert ready.reason == ""
            async with asyncio.timeout(15):
                while not Node.of(await node.client.get(NODES, node.config.name)).is_ready:
                    await asyncio.sleep(0.05)

    with_node(tmp_path, scenario, lease_renew_s=0.3)
