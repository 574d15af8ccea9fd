"""The node agent with the real API server, spawners and namespaces: pods from start to end."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from mesh.api.core import Node
from mesh.api.pod import Pod
from mesh.api.resources import CONFIG_MAPS, HOST_IMAGES, LEASES, NODES, PODS, SECRETS
from mesh.client.errors import UnavailableError
from mesh.client.rest import PatchType
from mesh.net.spawn import process_start_ticks
from tests.component.node_harness import (
    IS_ROOT,
    NODE,
    NodeUnderTest,
    is_zombie,
    pod_object,
    shell,
    status_of,
    with_node,
)

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(not IS_ROOT, reason="makes network namespaces: needs root (or uid 0 of a user namespace)"),
]

SERVER = "python3 -u -m http.server 8080"


def test_a_pod_runs_is_ready_and_is_deleted(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.client.create(
            CONFIG_MAPS,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v1"}},
            "default",
        )
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "aHVudGVy"}}
        await node.client.create(SECRETS, secret, "default")
        script = (
            'echo "$GREETING from $POD at $(cat /etc/web/k) $PASS"; hostname; cat /etc/resolv.conf | head -1;'
            "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; touch /cache/x && exec sleep 1000"
        )
        env = [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "GREETING", "value": "hello $(POD)"},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
        ]
        mounts = [{"name": "web", "mountPath": "/etc/web"}, {"name": "cache", "mountPath": "/cache"}]
        volumes = [{"name": "web", "configMap": {"name": "c"}}, {"name": "cache", "emptyDir": {}}]
        await node.create(pod_object("web", shell("app", script, env=env, volumeMounts=mounts), volumes=volumes))
        pod = await node.wait_for("web", lambda p: p.is_ready)
        assert pod.status.phase == "Running"
        assert pod.status.pod_ip.startswith("10.244.1.")
        assert pod.status.host_ip == "127.0.0.1"
        async with asyncio.timeout(5):
            while (text := await node.logs("web")).count("\n") < 4:
                await asyncio.sleep(0.02)
        # $(POD) is expanded in GREETING, which comes after it.
        assert text.splitlines() == ["hello web from web at v1 hunter", "web", "nameserver 10.96.0.10", "token"]
        assert (await node.logs("web", tailLines="1")) == "token\n"
        assert (await node.logs("web", timestamps="true", limitBytes="5")).startswith("20")
        reasons = {reason for reason, _ in await node.events("web")}
        assert {"Pulled", "Created", "Started"} <= reasons
        uid = pod.metadata.uid
        await node.client.delete(PODS, "web", "default")
        await node.wait_gone("web")
        assert not (node.config.state_dir / "pods" / uid).exists()

    with_node(tmp_path, scenario)


def test_init_containers_run_in_order_and_a_finished_pod_ends_its_sidecar(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        mount = [{"name": "shared", "mountPath": "/shared"}]
        sidecar = shell(
            "side",
            "trap 'echo side-ended >> /shared/order; exit 0' TERM; sleep 0.2; echo side >> /shared/order; touch /shared/ok;"
            "while :; do sleep 0.05; done",
            restartPolicy="Always",
            startupProbe={
                "exec": {"command": ["test", "-e", "/shared/ok"]},
                "periodSeconds": 1,
                "failureThreshold": 30,
            },
            volumeMounts=mount,
        )
        first = shell("first", "echo first >> /shared/order", volumeMounts=mount)
        second = shell("second", "echo second >> /shared/order", volumeMounts=mount)
        main = shell("main", "echo main >> /shared/order; cat /shared/order", volumeMounts=mount)
        await node.create(
            pod_object(
                "job",
                main,
                initContainers=[first, sidecar, second],
                restartPolicy="Never",
                volumes=[{"name": "shared", "emptyDir": {}}],
            )
        )
        pod = await node.wait_for(
            "job", lambda p: p.status.phase == "Succeeded" and status_of(p, "side").state.terminated is not None
        )
        assert (await node.logs("job", container="main")).split() == ["first", "side", "second", "main"]
        ended = status_of(pod, "main").state.terminated
        assert ended is not None
        assert (ended.exit_code, ended.reason) == (0, "Completed")

    with_node(tmp_path, scenario)


def test_a_crashing_container_backs_off_and_keeps_its_previous_log(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("crash", shell("app", "echo run $$; exit 3")))

        def is_looping(pod: Pod) -> bool:
            status = status_of(pod, "app")
            waiting = status.state.waiting
            return status.restart_count >= 2 and waiting is not None and waiting.reason == "CrashLoopBackOff"

        pod = await node.wait_for("crash", is_looping)
        last = status_of(pod, "app").last_state.terminated
        assert last is not None
        assert last.exit_code == 3
        assert pod.status.phase == "Running"
        assert not pod.is_ready
        assert (await node.logs("crash", previous="true")).startswith("run ")
        assert "restarting failed container app" in await node.wait_event("crash", "BackOff")

    with_node(tmp_path, scenario)


def test_an_unknown_image_says_what_to_do_and_starts_once_it_is_defined(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("mystery", {"name": "app", "image": "acme/app:1"}))
        pod = await node.wait_for("mystery", lambda p: status_of(p, "app").state.waiting is not None)
        await node.wait_for(
            "mystery",
            lambda p: (
                (w := status_of(p, "app").state.waiting) is not None
                and w.reason in ("ErrImagePull", "ImagePullBackOff")
            ),
        )
        assert pod.status.phase == "Pending"
        assert "kind: HostImage" in await node.wait_event("mystery", "Failed")
        image = {
            "apiVersion": "node.meshwork.dev/v1alpha1",
            "kind": "HostImage",
            "metadata": {"name": "acme"},
            "spec": {"match": ["acme/*"], "command": ["sh", "-c"], "args": ["exec sleep 1000"]},
        }
        await node.client.create(HOST_IMAGES, image)
        pod = await node.wait_for("mystery", lambda p: p.is_ready)
        assert status_of(pod, "app").image_id == "hostimage://acme"

    with_node(tmp_path, scenario)


def test_probes_decide_readiness_and_restarts(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        http = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
        tcp = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30}
        alive = {"exec": {"command": ["test", "!", "-e", "/flags/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
        container = shell(
            "app",
            f"rm -f /flags/sick; cd /flags; exec {SERVER}",
            ports=[{"name": "http", "containerPort": 8080}],
            readinessProbe=http,
            startupProbe=tcp,
            livenessProbe=alive,
            volumeMounts=[{"name": "flags", "mountPath": "/flags"}],
        )
        await node.create(pod_object("probed", container, volumes=[{"name": "flags", "emptyDir": {}}]))
        pod = await node.wait_for("probed", lambda p: p.is_ready)
        assert status_of(pod, "app").started is True
        flags = node.config.state_dir / "pods" / pod.metadata.uid / "volumes" / "flags"
        (flags / "sick").touch()
        await node.wait_for("probed", lambda p: status_of(p, "app").restart_count == 1 and p.is_ready)
        await node.wait_event("probed", "Killing")
        messages = [message for reason, message in await node.events("probed") if reason == "Unhealthy"]
        assert any(message.startswith("Liveness probe failed") for message in messages)

    with_node(tmp_path, scenario)


def test_deletion_waits_for_the_drain_then_runs_the_hook_and_ends_the_sidecar_last(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        order = tmp_path / "order"
        volumes = [{"name": "out", "hostPath": {"path": str(tmp_path)}}]
        mount = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}
        trap = "trap 'echo {0} >> /out/order; exit 0' TERM; touch /out/{0}; while :; do sleep 0.02; done"
        hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /out/order"]}}}
        await node.create(
            pod_object(
                "drained",
                shell("app", trap.format("app"), lifecycle=hook, **mount),
                initContainers=[shell("side", trap.format("side"), restartPolicy="Always", **mount)],
                volumes=volumes,
            )
        )
        await node.wait_for("drained", lambda p: p.is_ready)
        async with asyncio.timeout(5):
            while not (tmp_path / "app").exists():
                await asyncio.sleep(0.02)
        await node.client.delete(PODS, "drained", "default")
        await asyncio.sleep(0.3)
        assert not order.exists()
        condition = {"type": "meshwork.dev/Drained", "status": "True"}
        await node.client.patch(
            PODS,
            "drained",
            [{"op": "add", "path": "/status/conditions/-", "value": condition}],
            "default",
            patch_type=PatchType.JSON,
            subresource="status",
        )
        await node.wait_gone("drained")
        assert order.read_text().split() == ["hook", "app", "side"]

    with_node(tmp_path, scenario, drain_timeout_s=30.0)


def test_a_new_agent_finds_its_pods_and_cleans_up_what_was_deleted_meanwhile(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        await node.create(pod_object("stays", shell("app", f"exec {SERVER}", readinessProbe=probe)))
        await node.create(pod_object("goes", shell("app", "exec sleep 1000")))
        await node.create(pod_object("ends", shell("app", "sleep 0.5; exit 4"), restartPolicy="Never"))
        before = await node.wait_for("stays", lambda p: p.is_ready)
        gone = await node.wait_for("goes", lambda p: p.is_ready)
        await node.wait_for("ends", lambda p: p.status.phase == "Running")
        stays, goes = node.facts("stays", "app").running, node.facts("goes", "app").running
        await node.stop_agent()
        await node.client.delete(PODS, "goes", "default", grace_period_s=0)
        await asyncio.sleep(0.6)
        await node.start_agent()
        after = await node.wait_for("stays", lambda p: p.is_ready)
        assert after.status.container_statuses == before.status.container_statuses
        assert after.status.conditions == before.status.conditions
        assert stays is not None
        assert goes is not None
        assert process_start_ticks(stays.pid) == stays.start_ticks
        async with asyncio.timeout(10):
            while process_start_ticks(goes.pid) == goes.start_ticks:
                await asyncio.sleep(0.02)
            while (node.config.state_dir / "pods" / gone.metadata.uid).exists():
                await asyncio.sleep(0.02)
        ended = await node.wait_for("ends", lambda p: p.status.phase == "Failed")
        state = status_of(ended, "app").state.terminated
        assert state is not None
        assert state.exit_code == 4

    with_node(tmp_path, scenario)


def test_kill_9_of_the_agent_process_restarts_nothing(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.stop_agent()
        log = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done"
        async with node.agent_process():
            await node.create(pod_object("ticks", shell("app", log)))
            before = await node.wait_for("ticks", lambda p: p.is_ready)
        await node.create(pod_object("later", shell("app", "exec sleep 1000")))
        async with node.agent_process():
            await node.wait_for("later", lambda p: p.is_ready)
            after = await node.pod("ticks")
            assert after.status.container_statuses == before.status.container_statuses
            lines = (await node.logs("ticks")).split()[1::2]
            # Nothing was lost or said twice while there was no agent.
            assert lines == [str(number + 1) for number in range(len(lines))]
            await node.client.delete(PODS, "ticks", "default")
            await node.wait_gone("ticks")
            await node.client.delete(PODS, "later", "default")
            await node.wait_gone("later")

    with_node(tmp_path, scenario)


def test_an_api_outage_stops_nothing_and_restarts_go_on(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("steady", shell("app", "exec sleep 1000")))
        script = (
            "test -e /flags/once && exec sleep 1000; while test ! -e /flags/go; do sleep 0.02; done; touch /flags/once"
        )
        flags = [{"name": "flags", "mountPath": "/flags"}]
        volume = [{"name": "flags", "emptyDir": {}}]
        await node.create(pod_object("again", shell("app", script, volumeMounts=flags), volumes=volume))
        pod = await node.wait_for("again", lambda p: p.is_ready)
        await node.wait_for("steady", lambda p: p.is_ready)
        steady = node.facts("steady", "app").running
        async with node.without_api():
            (node.config.state_dir / "pods" / pod.metadata.uid / "volumes" / "flags" / "go").touch()
            async with asyncio.timeout(10):
                while node.facts("again", "app").attempt != 2:
                    await asyncio.sleep(0.02)
        assert node.facts("steady", "app").running == steady
        await node.wait_for("again", lambda p: status_of(p, "app").restart_count == 1 and p.is_ready, timeout_s=30)

    with_node(tmp_path, scenario)


def test_sidecars_are_forked_and_restarted_alone(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        proxy = {
            "name": "mesh-proxy",
            "image": "meshwork/sidecar:1",
            "restartPolicy": "Always",
            "args": ["--serve", "15021"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "startupProbe": {"tcpSocket": {"port": 15021}, "periodSeconds": 1, "failureThreshold": 60},
        }
        await node.create(pod_object("meshed", shell("app", "exec sleep 1000"), initContainers=[proxy]))
        await node.wait_for("meshed", lambda p: p.is_ready)
        app, sidecar = node.facts("meshed", "app").running, node.facts("meshed", "mesh-proxy").running
        assert app is not None
        assert sidecar is not None
        os.kill(sidecar.pid, signal.SIGKILL)
        await node.wait_for("meshed", lambda p: status_of(p, "mesh-proxy").restart_count == 1 and p.is_ready)
        assert node.facts("meshed", "app").running == app

    with_node(tmp_path, scenario)


def test_a_dead_spawner_restarts_its_containers(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("reborn", shell("app", "setsid sleep 1000 & echo $!; wait")))
        await node.wait_for("reborn", lambda p: p.is_ready)
        async with asyncio.timeout(5):
            while not (left_behind := (await node.logs("reborn")).strip()):
                await asyncio.sleep(0.02)
        node.kill_spawner("exec")
        pod = await node.wait_for("reborn", lambda p: status_of(p, "app").restart_count == 1 and p.is_ready)
        ended = status_of(pod, "app").last_state.terminated
        assert ended is not None
        assert ended.reason == "ContainerStatusUnknown"
        async with asyncio.timeout(5):
            while process_start_ticks(int(left_behind)) and not is_zombie(int(left_behind)):
                await asyncio.sleep(0.02)

    with_node(tmp_path, scenario)


def test_the_node_registers_and_says_when_it_cannot_start_containers(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        found = Node.of(await node.client.get(NODES, NODE))
        assert found.is_ready
        assert found.internal_ip == "127.0.0.1"
        assert found.metadata.labels["kubernetes.io/hostname"] == NODE
        assert found.spec.pod_cidr == "10.244.1.0/24"
        assert found.status.allocatable["cpu"] == str(os.cpu_count())
        assert {c.type: c.status for c in found.status.conditions}["MemoryPressure"] == "False"
        lease = await node.client.get(LEASES, NODE, "kube-node-lease")
        node.stop_spawner("sidecar")
        await node.wait_node(lambda n: not n.is_ready)
        node.kill_spawner("sidecar")
        await node.wait_node(lambda n: n.is_ready)
        renewed = await node.client.get(LEASES, NODE, "kube-node-lease")
        assert renewed["spec"]["renewTime"] > lease["spec"]["renewTime"]

    with_node(tmp_path, scenario, lease_renew_s=0.2)


def test_users_are_changed_or_refused(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("root", shell("app", "id -u"), securityContext={"runAsNonRoot": True}))

        def is_refused(pod: Pod) -> bool:
            waiting = status_of(pod, "app").state.waiting
            return waiting is not None and "runAsNonRoot" in waiting.message

        await node.wait_for("root", is_refused)
        own = {"runAsUser": 1234, "runAsGroup": 2345}
        await node.create(pod_object("user", shell("app", "id -u; id -g", securityContext=own), restartPolicy="Never"))
        pod = await node.wait_for("user", lambda p: p.status.phase in ("Succeeded", "Failed"))
        if pod.status.phase == "Succeeded":
            assert (await node.logs("user")).split() == ["1234", "2345"]
        else:  # in a user namespace with uid 0 only
            ended = status_of(pod, "app").state.terminated
            assert ended is not None
            assert "an ordinary user started" in ended.message

    with_node(tmp_path, scenario)


def test_what_cannot_be_executed_is_a_start_error(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        await node.create(pod_object("broken", {"name": "app", "command": ["no-such-program"]}, restartPolicy="Never"))
        pod = await node.wait_for("broken", lambda p: p.status.phase == "Failed")
        ended = status_of(pod, "app").state.terminated
        assert ended is not None
        assert (ended.exit_code, ended.reason) == (128, "StartError")
        assert "not found in PATH" in ended.message

    with_node(tmp_path, scenario)


def test_a_missing_config_map_is_waited_for(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
        await node.create(pod_object("waits", shell("app", "echo $A; exec sleep 1000", env=env)))

        def is_waiting(pod: Pod) -> bool:
            waiting = status_of(pod, "app").state.waiting
            return waiting is not None and waiting.reason == "CreateContainerConfigError"

        pod = await node.wait_for("waits", is_waiting)
        waiting = status_of(pod, "app").state.waiting
        assert waiting is not None
        assert waiting.message == 'configmap "late" not found'
        late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"a": "now"}}
        await node.client.create(CONFIG_MAPS, late, "default")
        await node.wait_for("waits", lambda p: p.is_ready)
        async with asyncio.timeout(5):
            while await node.logs("waits") != "now\n":
                await asyncio.sleep(0.02)

    with_node(tmp_path, scenario)


def test_logs_can_be_followed_to_the_end(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        script = "for i in 1 2 3; do echo line $i; sleep 0.15; done"
        await node.create(pod_object("talks", shell("app", script), restartPolicy="Never"))
        await node.wait_for("talks", lambda p: p.status.phase in ("Running", "Succeeded"))
        followed = await asyncio.wait_for(node.logs("talks", follow="true"), 10)
        assert followed == "line 1\nline 2\nline 3\n"

    with_node(tmp_path, scenario)


def test_the_api_server_reaches_a_pods_loopback(tmp_path: Path) -> None:
    async def scenario(node: NodeUnderTest) -> None:
        server = f"mkdir -p /run/w; cd /run/w; echo inside > index.html; exec {SERVER} --bind 127.0.0.1"
        ready = {"exec": {"command": ["test", "-e", "/run/w/index.html"]}, "periodSeconds": 1}
        await node.create(pod_object("lo", shell("app", server, readinessProbe=ready)))
        await node.wait_for("lo", lambda p: p.is_ready)
        body = b""
        async with asyncio.timeout(10):
            while not body:
                with contextlib.suppress(UnavailableError):  # the server is not listening yet
                    body = await node.client.raw("GET", "/api/v1/namespaces/default/pods/lo:8080/proxy/index.html")
                await asyncio.sleep(0.05)
        assert body == b"inside\n"

    with_node(tmp_path, scenario)
