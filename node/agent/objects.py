"""ConfigMaps, Secrets and service account tokens that pods need, read from the API server."""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from mesh.api.core import ConfigMap, Secret, ServiceAccount
from mesh.api.pod import Container, Pod
from mesh.api.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Json, Resource
from mesh.client.errors import NotFoundError, UnavailableError
from mesh.client.rest import ApiClient
from node.runtime.environment import Sources, needed_sources

logger = logging.getLogger(__name__)

_MAX_CACHED = 256
TOKEN_LIFETIME_S = 3607
"""Asked for; as kubelet asks for a projected token (one hour and a bit)."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bound service account token. `expires_at` is seconds since the epoch."""

    text: str
    expires_at: float


class PodObjects:
    """Reads what pods refer to. The last versions are kept, so that a container can restart while the API is away."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._cache: OrderedDict[tuple[str, str, str], Json] = OrderedDict()

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """None when it does not exist. Raises ApiError."""
        found = await self._get(CONFIG_MAPS, namespace, name)
        return ConfigMap.of(found) if found is not None else None

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """None when it does not exist. Raises ApiError."""
        found = await self._get(SECRETS, namespace, name)
        return Secret.of(found) if found is not None else None

    async def sources(self, pod: Pod, container: Container) -> Sources:
        """What the container's environment refers to. Raises ApiError."""
        namespace = pod.metadata.namespace
        config_maps: dict[str, dict[str, str]] = {}
        secrets: dict[str, dict[str, str]] = {}
        wanted_maps, wanted_secrets = needed_sources(container)
        for name in wanted_maps:
            if (config_map := await self.config_map(namespace, name)) is not None:
                config_maps[name] = dict(config_map.data)
        for name in wanted_secrets:
            if (secret := await self.secret(namespace, name)) is not None:
                secrets[name] = {k: v.decode(errors="surrogateescape") for k, v in secret.files().items()}
        return Sources(config_maps=config_maps, secrets=secrets)

    async def wants_token(self, pod: Pod) -> bool:
        """The pod gets a service account token: neither it nor its account says no. Raises ApiError."""
        if pod.spec.automount_service_account_token is not None:
            return pod.spec.automount_service_account_token
        account = await self._get(SERVICE_ACCOUNTS, pod.metadata.namespace, _account(pod))
        return account is None or ServiceAccount.of(account).automount_service_account_token is not False

    async def token(self, pod: Pod) -> Token:
        """A new token bound to the pod. Raises ApiError."""
        meta = pod.metadata
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_LIFETIME_S, "boundObjectRef": bound},
        }
        name = _account(pod)
        answer = await self._client.create(SERVICE_ACCOUNTS, request, meta.namespace, subresource="token", name=name)
        status = answer["status"]
        expires = datetime.fromisoformat(str(status["expirationTimestamp"]))
        return Token(str(status["token"]), expires.timestamp())

    async def _get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        key = (resource.plural, namespace, name)
        try:
            found = await self._client.get(resource, name, namespace)
        except NotFoundError:
            self._cache.pop(key, None)
            return None
        except UnavailableError:
            if (old := self._cache.get(key)) is not None:
                logger.info("using the last version of an object: no API", extra={"object": "/".join(key)})
                return old
            raise
        self._cache[key] = found
        self._cache.move_to_end(key)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return found


def _account(pod: Pod) -> str:
    return pod.spec.service_account_name or "default"
