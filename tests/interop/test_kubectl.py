"""Real kubectl against the real API server and store (no controllers, no nodes: those are joined elsewhere)."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.net.loop import run
from tests.component.apiserver_harness import Api, api_server
from tests.loopback_port import free_port

pytestmark = pytest.mark.interop

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - destination: {host: web}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: c, image: nginx}]}
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crons.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crons, singular: cron, kind: Cron, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What to run.
            required: [image]
            properties: {image: {type: string}}
"""
CRON = """
apiVersion: stable.example.com/v1
kind: Cron
metadata: {name: one}
spec: {image: x}
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


class Kubectl:
    """kubectl with a kubeconfig and caches of its own."""

    def __init__(self, home: Path, api: Api) -> None:
        binary = shutil.which("kubectl")
        assert binary, "kubectl is not installed: run `make setup`"
        self._binary = binary
        self.api = api
        self._environment = {**os.environ, "KUBECONFIG": str(home / "kubeconfig"), "HOME": str(home)}

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        process = await asyncio.create_subprocess_exec(
            self._binary,
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(40):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Result(process.returncode or 0, out.decode(), err.decode())

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
        """A command that runs on; its output."""
        process = await asyncio.create_subprocess_exec(
            self._binary, *arguments, env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.kill()
            await process.wait()

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """The output of a command that must succeed."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, f"kubectl {' '.join(arguments)}: {result.err}"
        return result.out

    async def fails(self, *arguments: str, stdin: str = "") -> str:
        """What a command that must fail says."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code != 0, result.out
        return result.err


@asynccontextmanager
async def _kubectl(home: Path) -> AsyncIterator[Kubectl]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with api_server(home, api_addresses=(address,), external_server=f"https://{address}") as api:
        yield Kubectl(home, api)


def test_apply_creates_updates_and_leaves_alone(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            assert (await kubectl("apply", "-f", "-", stdin=WEB)).count("created") == 4
            assert (await kubectl("apply", "-f", "-", stdin=WEB)).count("unchanged") == 4
            changed = WEB.replace("replicas: 2", "replicas: 3").replace("hosts: [web]", "hosts: [web, web2]")
            diff = await kubectl.run("diff", "-f", "-", stdin=changed)
            assert diff.code == 1
            assert "+  replicas: 3" in diff.out
            assert (await kubectl("apply", "--dry-run=server", "-f", "-", stdin=changed)).count("configured") == 2
            assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"
            assert (await kubectl("apply", "-f", "-", stdin=changed)).count("configured") == 2
            assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"
            removed = changed.replace(
                "    metadata: {labels: {app: web}}\n", "    metadata: {labels: {app: web, v: a}}\n"
            )
            await kubectl("apply", "-f", "-", stdin=removed)
            await kubectl("apply", "-f", "-", stdin=changed)
            assert "v" not in json.loads(
                await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.labels}")
            )

    run(check())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("replicas: 2", "replicass: 2"), 'unknown field "spec.replicass"'),
        (("replicas: 2", 'replicas: "two"'), "spec.replicas"),
        (("kind: Deployment", "kind: Deploymint"), 'no matches for kind "Deploymint"'),
        (("matchLabels: {app: web}", "matchLabels: {app: other}"), "spec.template.metadata.labels"),
        (("hosts: [web]", "host: [web]"), "spec.host: "),
        (("  replicas: 2", " replicas: 2"), "yaml"),
    ],
)
def test_apply_refuses_bad_input_and_stores_none_of_it(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            said = await kubectl.fails("apply", "-f", "-", stdin=WEB.replace(*change))
            assert message in said
            kind = "virtualservice" if "host" in change[0] else "deployment"
            assert await kubectl("get", kind) == ""

    run(check())


def test_get_describe_and_watch(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("apply", "-f", "-", stdin=WEB)
            wide = (await kubectl("get", "deploy", "-o", "wide")).splitlines()
            assert wide[0].split()[-4:] == ["AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
            assert wide[1].split()[:2] == ["web", "0/2"]
            everything = await kubectl("get", "all")
            assert {"pod/p", "service/web", "deployment.apps/web"} <= set(everything.split())
            assert "kind: VirtualService" in await kubectl("get", "vs", "web", "-o", "yaml")
            for kind, words in (("deploy", "RollingUpdateStrategy"), ("svc", "TargetPort"), ("pod", "Pending")):
                assert words in await kubectl("describe", kind, "p" if kind == "pod" else "web")
            async with asyncio.timeout(20), kubectl.started("get", "pods", "-w", "--no-headers") as lines:
                assert (await lines.readline()).split()[0] == b"p"
                await kubectl("run", "late", "--image=nginx")
                assert (await lines.readline()).split()[0] == b"late"

    run(check())


def test_scale_label_annotate_and_the_three_patches(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("apply", "-f", "-", stdin=WEB)
            await kubectl("scale", "deploy", "web", "--replicas=5")
            said = await kubectl.fails("scale", "deploy", "web", "--replicas=4", "--current-replicas=9")
            assert "Expected replicas to be 9" in said
            await kubectl("label", "deploy", "web", "tier=front")
            await kubectl("annotate", "pod", "p", "note=x")
            await kubectl("label", "deploy", "web", "app-")
            await kubectl("patch", "deploy", "web", "-p", '{"spec":{"paused":true}}')
            await kubectl("patch", "deploy", "web", "--type=merge", "-p", '{"spec":{"minReadySeconds":3}}')
            await kubectl(
                "patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":1}]'
            )
            deploy = json.loads(await kubectl("get", "deploy", "web", "-o", "json"))
            spec = deploy["spec"]
            assert (spec["replicas"], spec["paused"], spec["minReadySeconds"]) == (1, True, 3)
            assert deploy["metadata"]["labels"] == {"tier": "front"}
            status = '{"status":{"replicas":1,"readyReplicas":1}}'
            await kubectl("patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", status)
            assert "1/1" in await kubectl("get", "deploy", "web")
            said = await kubectl.fails("patch", "vs", "web", "-p", '{"spec":{"hosts":["a"]}}')
            assert "application/strategic-merge-patch+json" in said

    run(check())


def test_rollout_as_far_as_the_api_goes(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("apply", "-f", "-", stdin=WEB)
            await kubectl("set", "image", "deploy/web", "web=nginx:2")
            await kubectl("rollout", "restart", "deploy/web")
            annotations = await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}")
            assert "kubectl.kubernetes.io/restartedAt" in annotations
            await kubectl("rollout", "pause", "deploy/web")
            await kubectl("rollout", "resume", "deploy/web")
            assert "No rollout history" in await kubectl("rollout", "history", "deploy/web")
            generation = await kubectl("get", "deploy", "web", "-o", "jsonpath={.metadata.generation}")
            status = {
                "observedGeneration": int(generation),
                "replicas": 2,
                "updatedReplicas": 2,
                "readyReplicas": 2,
                "availableReplicas": 2,
            }
            patch = json.dumps({"status": status})
            await kubectl("patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", patch)
            assert "successfully rolled out" in await kubectl("rollout", "status", "deploy/web", "--timeout=10s")

    run(check())


def test_delete_and_wait(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("apply", "-f", "-", stdin=WEB)
            await kubectl("wait", "--for=jsonpath={.status.phase}=Pending", "pod/p", "--timeout=10s")
            waiting = asyncio.gather(kubectl("wait", "--for=delete", "pod/p", "--timeout=20s"))
            await kubectl("delete", "pod", "p")
            await waiting
            await kubectl("delete", "-f", "-", "--ignore-not-found", stdin=WEB)
            assert await kubectl("get", "deploy,vs") == ""
            assert "not found" in await kubectl.fails("get", "pod", "p")
            assert "may not be deleted" in await kubectl.fails("delete", "ns", "default")

    run(check())


def test_create_sends_protobuf_and_is_understood(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("create", "namespace", "x")
            for words in (
                "configmap cm --from-literal=a=b",
                "secret generic s --from-literal=a=b",
                "serviceaccount robot",
                "deployment d --image=nginx --replicas=3 --port=80",
                "service clusterip c --tcp=80:8080",
                "service nodeport n --tcp=80:8080",
            ):
                await kubectl("create", "-n", "x", *words.split())
            assert await kubectl("get", "-n", "x", "cm", "cm", "-o", "jsonpath={.data.a}") == "b"
            assert await kubectl("get", "-n", "x", "deploy", "d", "-o", "jsonpath={.spec.replicas}") == "3"
            assert (await kubectl("create", "token", "-n", "x", "robot")).count(".") == 2
            assert (await kubectl("auth", "can-i", "create", "pods")).strip() == "yes"
            assert "meshwork-admin" in await kubectl("auth", "whoami")

    run(check())


def test_discovery_and_explain(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            resources = await kubectl("api-resources", "--no-headers")
            assert {"deployments", "hostimages", "virtualservices"} <= {
                line.split()[0] for line in resources.splitlines()
            }
            assert "rollingUpdate" in await kubectl("explain", "deployment.spec.strategy")
            assert "hosts" in await kubectl("explain", "virtualservice.spec")
            assert "v1.32" in await kubectl("version")

    run(check())


def test_custom_kinds(tmp_path: Path) -> None:
    async def check() -> None:
        async with _kubectl(tmp_path) as kubectl:
            await kubectl("apply", "-f", "-", stdin=CRD)
            await kubectl("wait", "--for=condition=Established", "crd/crons.stable.example.com", "--timeout=10s")
            await kubectl("apply", "-f", "-", stdin=CRON)
            await kubectl("apply", "-f", "-", stdin=CRON.replace("image: x", "image: z"))
            assert await kubectl("get", "ct", "one", "-o", "jsonpath={.spec.image}") == "z"
            said = await kubectl.fails("apply", "-f", "-", stdin=CRON.replace("image: x", "imag: x"))
            assert "spec.image" in said or "spec.imag" in said
            assert "What to run." in await kubectl("explain", "cron.spec")
            await kubectl("delete", "crd", "crons.stable.example.com", "--timeout=20s")
            assert "the server" in await kubectl.fails("get", "crons")

    run(check())
