"""Real kubectl against real controllers: rollout status, history, undo, pause, restart, scale, wait, delete."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.identity.kubeconfig import KubeconfigEntry, write_kubeconfig
from tests.component.controlled_cluster import Cluster, controlled_cluster

pytestmark = pytest.mark.interop

_MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    kubernetes.io/change-cause: first version
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: app
        image: registry.example/web:v1
        ports:
        - {name: http, containerPort: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {port: 80, targetPort: http}
"""


@dataclass
class Kubectl:
    """Runs kubectl against one cluster."""

    kubeconfig: Path

    async def __call__(self, *arguments: str, stdin: str = "", ok: bool = True) -> str:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            "--kubeconfig",
            str(self.kubeconfig),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(self.kubeconfig.parent)},
        )
        output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        text = output.decode()
        assert (process.returncode == 0) is ok, f"kubectl {' '.join(arguments)} ended with {process.returncode}: {text}"
        return text

    async def json_of(self, *arguments: str) -> object:
        return json.loads(await self("get", *arguments, "-o", "json"))


def _run(home: Path, scenario: Callable[[Cluster, Kubectl], Awaitable[None]]) -> None:
    async def main() -> None:
        async with controlled_cluster(home) as cluster:
            path = home / "test.kubeconfig"
            entry = KubeconfigEntry(
                server=cluster.client.config.server,
                user="admin",
                ca_file=Path(cluster.client.config.ca_file),
                pair=cluster.admin,
            )
            write_kubeconfig(path, entry)
            await scenario(cluster, Kubectl(path))

    asyncio.run(main())


def test_rollout_status_history_and_undo(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, kubectl: Kubectl) -> None:
        assert "deployment.apps/web created" in await kubectl("apply", "-f", "-", stdin=_MANIFEST)
        assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")

        await kubectl("set", "image", "deployment/web", "app=registry.example/web:v2")
        await kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=second version", "--overwrite")
        assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await cluster.until(lambda: {p.spec.containers[0].image for p in cluster.pods()} == {"registry.example/web:v2"})

        await cluster.until_revision("web", "2")
        history = await kubectl("rollout", "history", "deployment/web")
        assert "first version" in history
        assert "second version" in history
        assert "registry.example/web:v1" in await kubectl("rollout", "history", "deployment/web", "--revision=1")

        assert "rolled back" in await kubectl("rollout", "undo", "deployment/web")
        assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await cluster.until(lambda: {p.spec.containers[0].image for p in cluster.pods()} == {"registry.example/web:v1"})
        await cluster.until_revision("web", "3")
        history = await kubectl("rollout", "history", "deployment/web")
        assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["2", "3"]
        assert "rolled back" in await kubectl("rollout", "undo", "deployment/web", "--to-revision=2")
        await cluster.until(lambda: {p.spec.containers[0].image for p in cluster.pods()} == {"registry.example/web:v2"})

    _run(tmp_path, scenario)


def test_scale_pause_resume_and_restart(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, kubectl: Kubectl) -> None:
        await kubectl("apply", "-f", "-", stdin=_MANIFEST)
        await kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=20s")
        assert "scaled" in await kubectl("scale", "deployment/web", "--replicas=5")
        await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await cluster.until(lambda: len(cluster.pods()) == 5)

        await kubectl("rollout", "pause", "deployment/web")
        await kubectl("set", "image", "deployment/web", "app=registry.example/web:v2")
        await kubectl("scale", "deployment/web", "--replicas=2")
        await cluster.until(lambda: len(cluster.pods()) == 2)
        assert {p.spec.containers[0].image for p in cluster.pods()} == {"registry.example/web:v1"}
        await kubectl("rollout", "resume", "deployment/web")
        await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await cluster.until(lambda: {p.spec.containers[0].image for p in cluster.pods()} == {"registry.example/web:v2"})

        before = {pod.metadata.uid for pod in cluster.pods()}
        await kubectl("rollout", "restart", "deployment/web")
        await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        await cluster.until(lambda: len(cluster.pods()) == 2 and not before & {p.metadata.uid for p in cluster.pods()})

    _run(tmp_path, scenario)


def test_describe_tells_the_story_and_delete_takes_everything(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, kubectl: Kubectl) -> None:
        await kubectl("apply", "-f", "-", stdin=_MANIFEST)
        await kubectl("rollout", "status", "deployment/web", "--timeout=20s")
        described = await kubectl("describe", "deployment/web")
        assert "ScalingReplicaSet" in described
        assert "3 available" in described
        assert "SuccessfulCreate" in await kubectl("describe", "replicaset", "-l", "app=web")
        service = await kubectl("describe", "service/web")
        assert any(pod.status.pod_ip in service for pod in cluster.pods())
        assert "3/3" in await kubectl("get", "deployment/web")
        await kubectl("delete", "-f", "-", "--cascade=foreground", "--timeout=20s", stdin=_MANIFEST)
        assert "No resources found" in await kubectl("get", "pods,replicasets,deployments")
        await kubectl("create", "namespace", "shop")
        await kubectl("apply", "-n", "shop", "-f", "-", stdin=_MANIFEST)
        await kubectl("rollout", "status", "-n", "shop", "deployment/web", "--timeout=20s")
        await kubectl("delete", "namespace", "shop", "--timeout=30s")
        assert "NotFound" in await kubectl("get", "namespace", "shop", ok=False)

    _run(tmp_path, scenario)
