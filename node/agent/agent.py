"""The node agent: finds its pods, gives each a worker, and keeps what they share running."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

import aiohttp
import msgspec

from mesh.api.node import HostImage
from mesh.api.pod import Pod
from mesh.api.resources import HOST_IMAGES, PODS, Json
from mesh.backoff import Backoff
from mesh.client.errors import ApiError
from mesh.client.events import EventRecorder
from mesh.client.informer import Change, ChangeType, Informer
from mesh.client.rest import ApiClient, ClientConfig
from mesh.clock import Clock, SystemClock
from mesh.errors import MeshError
from mesh.net.spawn import Record
from mesh.net.tasks import spawn
from node.agent.kubelet_api import KubeletApi
from node.agent.launcher import Launcher, Network
from node.agent.objects import PodObjects
from node.agent.plan import Settings
from node.agent.pod_view import WorkerTools
from node.agent.prober import Checker
from node.agent.registration import Registration, machine_capacity
from node.agent.state import PodState, load_state, split_container_id
from node.agent.worker import PodWorker
from node.config import NodeConfig
from node.errors import NotReadyError, StateError
from node.runtime.spawners import ContainerRuntime
from node.runtime.volumes import remove_tree

logger = logging.getLogger(__name__)

_WORKER_RESTART_S = 5.0
_API_POLL = Backoff(base_s=0.03, cap_s=0.5, factor=1.3, jitter=0.0)


class ServedNetwork(Network, Protocol):
    """What this room needs of `node.network.NodeNetwork` beyond single pods."""

    async def set_up(self) -> None: ...
    async def run(self, client: ApiClient) -> None: ...
    async def close(self) -> None: ...


class NodeAgent:
    """One node's agent. Build it on the loop, then `run` it once."""

    def __init__(
        self,
        config: NodeConfig,
        client_config: ClientConfig,
        network: ServedNetwork,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._client_config = client_config
        self._client = ApiClient(client_config)
        self._network = network
        self._clock: Clock = clock or SystemClock()
        self._workers: dict[str, PodWorker] = {}
        self._ended: set[str] = set()
        self._records: dict[bool, tuple[Record, ...]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._capacity = machine_capacity(config.max_pods)
        selector = f"spec.nodeName={config.name}"
        self._pods = Informer[Json](self._client, PODS, _as_json, field_selector=selector)
        self._host_images = Informer(self._client, HOST_IMAGES, HostImage.of)
        self._recorder = EventRecorder(self._client, "kubelet", host=config.name)
        self._runtime = ContainerRuntime(
            config.exec_socket, config.sidecar_socket, on_exit=self._exited, on_synced=self._synced
        )
        self._registration = Registration(
            config, self._client, self._capacity, self._clock, runtime_problem=self._runtime.problem
        )
        self._tools: WorkerTools | None = None
        self.kubelet_api = KubeletApi(config, client_config, self.find_worker, self._all_workers)

    @property
    def registered(self) -> asyncio.Event:
        """Set when the Node says Ready for the first time."""
        return self._registration.registered

    async def run(self) -> None:
        """Work until cancelled. Containers go on when it ends. Raises MeshError when the node cannot be prepared."""
        self._config.state_dir.mkdir(parents=True, exist_ok=True)
        await self._network.set_up()
        try:
            await self._work()
        finally:
            with contextlib.suppress(MeshError):
                await self._network.close()

    async def _work(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=False)
        async with (
            self._client,
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            self._tools = self._worker_tools(session)
            try:
                spawn(group, self._runtime.run(), name="spawners")
                spawn(group, self.kubelet_api.run(), name="kubelet API")
                await self._runtime.wait_connected()
                # Pods that are here go on before anything is asked of the API.
                self._restore()
                await self._wait_api()
                spawn(group, self._registration.run(), name="registration")
                spawn(group, self._recorder.run(), name="events")
                spawn(group, self._host_images.run(), name="host images")
                spawn(group, self._network.run(self._client), name="network")
                spawn(group, self._follow_pods(), name="pods")
                await asyncio.Event().wait()
            finally:
                self._group = None

    async def _wait_api(self) -> None:
        """Wait for the API server's first answer, asking often: a cluster that starts must not wait for back-offs."""
        tries = 0
        while True:
            try:
                await self._client.raw("GET", "/readyz")
                return
            except ApiError as exc:
                tries += 1
                if tries == 1:
                    logger.info("waiting for the API server", extra={"error": str(exc)})
                await asyncio.sleep(_API_POLL.ceiling_s(tries))

    def _worker_tools(self, session: aiohttp.ClientSession) -> WorkerTools:
        config = self._config
        launcher = Launcher(
            config,
            objects=PodObjects(self._client),
            network=self._network,
            runtime=self._runtime,
            host_images=self._known_images,
            capacity=self._capacity,
            clock=self._clock,
        )
        settings = Settings(
            restart_base_s=config.restart_base_s,
            restart_cap_s=config.restart_cap_s,
            restart_reset_s=config.restart_reset_s,
            drain_timeout_s=config.drain_timeout_s,
        )
        return WorkerTools(
            client=self._client,
            launcher=launcher,
            runtime=self._runtime,
            checker=Checker(session),
            recorder=self._recorder,
            settings=settings,
            host_ip=config.address,
            clock=self._clock,
        )

    # Pods

    def _restore(self) -> None:
        """Go on with every pod an earlier agent left, before the API has said anything."""
        for path in sorted((self._config.state_dir / "pods").glob("*/state.json")):
            try:
                state = load_state(path)
            except StateError as exc:
                logger.error("a pod's state is unusable; it starts anew", extra={"error": str(exc)})
                continue
            self._add(state)
        for is_forked, records in self._records.items():
            self._synced(is_forked, records)

    async def _follow_pods(self) -> None:
        """Workers follow the API; pods that left it while the agent was away are ended once it is known."""
        await self._wait_host_images()
        self._pods.add_handler(self._pod_changed)
        assert self._group is not None
        spawn(self._group, self._pods.run(), name="pod informer")
        await self._pods.wait_synced()
        present = {str(pod["metadata"]["uid"]) for pod in self._pods.all()}
        for uid, worker in tuple(self._workers.items()):
            if uid not in present:
                worker.gone()
        self._remove_leftovers(present)

    async def _wait_host_images(self) -> None:
        """Without them every image would be unknown. Workers of restored pods see them as they come."""
        self._host_images.add_handler(self._images_changed)
        await self._host_images.wait_synced()

    def _remove_leftovers(self, present: set[str]) -> None:
        """Directories of pods that nobody knows (a crash between two steps)."""
        for path in (self._config.state_dir / "pods").glob("*"):
            if path.name not in present and path.name not in self._workers:
                with contextlib.suppress(MeshError):
                    remove_tree(path)

    def _known_images(self) -> tuple[HostImage, ...]:
        if not self._host_images.has_synced:
            raise NotReadyError(
                "HostImages are not known yet: the API server has not been reached since this agent started"
            )
        return self._host_images.all()

    def _images_changed(self, _: Change[HostImage]) -> None:
        for worker in self._workers.values():
            worker.images_changed()

    def _pod_changed(self, change: Change[Json]) -> None:
        pod = change.object
        uid = str(pod["metadata"]["uid"])
        if change.type is ChangeType.MODIFIED and change.old is not None:
            old_uid = str(change.old["metadata"]["uid"])
            if old_uid != uid and (replaced := self._workers.get(old_uid)) is not None:
                replaced.gone()
        worker = self._workers.get(uid)
        if change.type is ChangeType.DELETED:
            self._ended.discard(uid)
            if worker is not None:
                worker.gone()
        elif worker is not None:
            worker.update(pod)
        elif uid not in self._ended:
            self._accept(pod)

    def _accept(self, pod: Json) -> None:
        """A pod that was bound to this node."""
        view = Pod.of(pod)
        meta = {k: v for k, v in pod["metadata"].items() if k != "managedFields"}
        state = PodState(pod={**pod, "metadata": meta}, started_at=self._clock.wall())
        if view.is_finished:
            # It ended here before, and this node has forgotten it: it never runs again.
            if not view.metadata.is_terminating:
                return
            state = msgspec.structs.replace(state, final_phase=view.status.phase)
        self._add(state)

    def _add(self, state: PodState) -> None:
        assert self._tools is not None
        assert self._group is not None
        worker = PodWorker(state, self._tools)
        uid = worker.pod.metadata.uid
        self._workers[uid] = worker
        spawn(self._group, self._run_worker(uid, worker), name=f"pod {worker.pod.key}")

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        """Run a worker to its end. One that fails is begun again from its state: pods must not fail each other."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                logger.exception("a pod worker failed", extra={"pod": worker.pod.key})
                await asyncio.sleep(_WORKER_RESTART_S)
                assert self._tools is not None
                worker = PodWorker(worker.state, self._tools)
                self._workers[uid] = worker
        self._workers.pop(uid, None)
        if any(str(pod["metadata"]["uid"]) == uid for pod in self._pods.all()):
            self._ended.add(uid)

    def find_worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod by name; None when this node has no such pod."""
        found = None
        for worker in self._workers.values():
            if (worker.pod.metadata.namespace, worker.pod.metadata.name) == (namespace, name):
                found = worker  # the newest incarnation wins
        return found

    def _all_workers(self) -> Sequence[PodWorker]:
        return tuple(self._workers.values())

    # Containers

    def _exited(self, record: Record) -> None:
        if self._runtime.command_exited(record):
            return
        parts = split_container_id(record.id)
        if parts is not None and (worker := self._workers.get(parts[0])) is not None:
            worker.exited(record)

    def _synced(self, is_forked: bool, records: tuple[Record, ...]) -> None:
        self._records[is_forked] = records
        by_pod: dict[str, list[Record]] = {uid: [] for uid in self._workers}
        for record in records:
            parts = split_container_id(record.id)
            if parts is not None and parts[0] in by_pod:
                by_pod[parts[0]].append(record)
        for uid, own in by_pod.items():
            self._workers[uid].synced(is_forked, own)


def _as_json(obj: Json) -> Json:
    return obj
