"""Which pod is on which node and what it refers to: kept current by a watch, asked by the authorizer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from controlplane.apiserver.objects import collection_prefix, prefix_end
from controlplane.store.protocol import Event, EventType, Revision, Store, Watch
from mesh.api.resources import PODS, Json

Reference = tuple[str, str, str]
"""(plural, namespace, name)."""


@dataclass(frozen=True, slots=True)
class _Entry:
    node: str
    references: frozenset[Reference]


class PodIndex:
    """PodFacts from the store. Memory: a small entry per pod."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], _Entry] = {}
        self._uses: dict[str, Counter[Reference]] = {}
        self._watch: Watch | None = None
        self.failure: Exception | None = None

    async def start(self, store: Store) -> None:
        """Load all pods and follow them. When the watch is lost, `failure` says why (the store is gone)."""
        prefix = collection_prefix(PODS)
        loaded = await store.range(prefix, prefix_end(prefix))
        for kv in loaded.kvs:
            self._set(orjson.loads(kv.value))
        self._watch = store.watch(
            prefix,
            prefix_end(prefix),
            from_revision=loaded.revision + 1,
            on_events=self._on_events,
            on_lost=self._on_lost,
        )

    def stop(self) -> None:
        """Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def node_of(self, namespace: str, pod: str) -> str | None:
        entry = self._pods.get((namespace, pod))
        return None if entry is None else entry.node

    def node_uses(self, node: str, plural: str, namespace: str, name: str) -> bool:
        return self._uses.get(node, Counter())[(plural, namespace, name)] > 0

    def _on_lost(self, error: Exception) -> None:
        self.failure = error

    def _on_events(self, _revision: Revision, events: Sequence[Event]) -> None:
        for event in events:
            if event.type is EventType.PUT:
                self._set(orjson.loads(event.kv.value))
            else:
                namespace, _, name = event.kv.key.decode().rpartition("/")
                self._remove((namespace.rpartition("/")[2], name))

    def _set(self, pod: Json) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._remove(key)
        node = (pod.get("spec") or {}).get("nodeName") or ""
        entry = _Entry(node, frozenset(references_of(pod)) if node else frozenset())
        self._pods[key] = entry
        if node:
            self._uses.setdefault(node, Counter()).update(entry.references)

    def _remove(self, key: tuple[str, str]) -> None:
        entry = self._pods.pop(key, None)
        if entry is None or not entry.node:
            return
        uses = self._uses[entry.node]
        uses.subtract(entry.references)
        for reference in entry.references:
            if uses[reference] <= 0:
                del uses[reference]
        if not uses:
            del self._uses[entry.node]


def references_of(pod: Json) -> Iterator[Reference]:
    """The ConfigMaps, Secrets and ServiceAccount a pod refers to."""
    namespace = pod["metadata"]["namespace"]
    spec = pod.get("spec") or {}
    yield "serviceaccounts", namespace, spec.get("serviceAccountName") or "default"
    yield "configmaps", namespace, "kube-root-ca.crt"
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", namespace, secret.get("name", "")
    for volume in spec.get("volumes") or ():
        for plural, name in _of_volume(volume):
            yield plural, namespace, name
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for plural, name in _of_container(container):
            yield plural, namespace, name


def _of_volume(volume: Json) -> Iterator[tuple[str, str]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
    for source in sources:
        if config_map := source.get("configMap"):
            yield "configmaps", config_map.get("name", "")
        if secret := source.get("secret"):
            yield "secrets", secret.get("secretName") or secret.get("name", "")


def _of_container(container: Json) -> Iterator[tuple[str, str]]:
    for env in container.get("env") or ():
        source = env.get("valueFrom") or {}
        if ref := source.get("configMapKeyRef"):
            yield "configmaps", ref.get("name", "")
        if ref := source.get("secretKeyRef"):
            yield "secrets", ref.get("name", "")
    for source in container.get("envFrom") or ():
        if ref := source.get("configMapRef"):
            yield "configmaps", ref.get("name", "")
        if ref := source.get("secretRef"):
            yield "secrets", ref.get("name", "")
